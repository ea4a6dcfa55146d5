"""A volume with its grid and unit: what every reader returns and every writer takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from nibabel import orientations
from scipy import ndimage

from allpet_physics.errors import GeometryError

#: Two grids are the same when no corner differs by more than this part of the smallest voxel side.
GRID_TOLERANCE = 0.01
#: Column to patient left, row to posterior, slice to superior: the order in which axial slices are read.
AXIAL = ("L", "P", "S")


@dataclass(frozen=True)
class Volume:
    """Voxel values on a grid in patient space.

    Parameters
    ----------
    data : ndarray
        Values, shape (i, j, k).
    affine : ndarray
        4 × 4 matrix from voxel index (i, j, k, 1) to RAS millimetres; voxel centres at integer indices.
    unit : str
        ``"SUVbw"``, ``"Bq/ml"``, ``"HU"``, ``"1/cm"``, ``"label"``, ``"mask"`` or ``"unknown"``.
    tags : mapping
        What was read from the header to make `data`: no name, identifier, UID, date, time of day or free text.
    warnings : tuple of str
        What the reader noticed; one sentence each.

    Raises
    ------
    GeometryError
        Data that is not 3D, an affine that is not an invertible 4 × 4 matrix.
    """

    data: np.ndarray
    affine: np.ndarray
    unit: str = "unknown"
    tags: Mapping = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self):
        affine = np.array(self.affine, dtype=np.float64)
        if np.ndim(self.data) != 3:
            raise GeometryError(f"a volume must have three axes, but its shape was {np.shape(self.data)}; "
                                "select one frame of a dynamic series first.")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError("affine must be an invertible 4 x 4 matrix from voxel index to RAS mm.")
        object.__setattr__(self, "affine", affine)

    @property
    def voxel_mm(self) -> np.ndarray:
        """Side lengths of a voxel along i, j, k in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    @property
    def axis_codes(self) -> tuple[str, str, str]:
        """The patient direction that each axis grows towards, for example ``("R", "A", "S")``."""
        return orientations.aff2axcodes(self.affine)

    @property
    def obliquity_deg(self) -> float:
        """Largest angle between a voxel axis and the patient axis nearest to it, in degrees."""
        cosines = np.abs(self.affine[:3, :3] / self.voxel_mm).max(axis=0)
        return float(np.degrees(np.arccos(np.clip(cosines, 0, 1))).max())

    def replace(self, **changes) -> "Volume":
        """Return a copy with some fields changed, validated again."""
        return replace(self, **changes)

    def reoriented(self, codes: tuple[str, str, str] = AXIAL) -> "Volume":
        """Return the same object with axes permuted and flipped towards `codes`; no value is interpolated."""
        transform = orientations.ornt_transform(orientations.io_orientation(self.affine),
                                                orientations.axcodes2ornt(codes))
        data = orientations.apply_orientation(self.data, transform)
        affine = self.affine @ orientations.inv_ornt_aff(transform, self.data.shape)
        return self.replace(data=data, affine=affine)

    def axial_slices(self) -> np.ndarray:
        """Return the data as axial slices ``[slice, row, col]``: inferior first, anterior up, patient left at right."""
        return np.ascontiguousarray(self.reoriented(AXIAL).data.transpose(2, 1, 0))

    def from_axial_slices(self, stack: np.ndarray, **changes) -> "Volume":
        """Return a volume on this grid from ``[slice, row, col]``, undoing `axial_slices`."""
        axial = self.reoriented(AXIAL)
        stack = np.asarray(stack)
        if stack.shape != axial.data.shape[::-1]:
            raise GeometryError(f"stack must have shape {axial.data.shape[::-1]}, but was {stack.shape}.")
        return axial.replace(data=stack.transpose(2, 1, 0), **changes).reoriented(self.axis_codes)


def grid_mismatch(reference: Volume, other: Volume) -> str | None:
    """Say how two grids differ, or return None when they are the same up to `GRID_TOLERANCE` of a voxel.

    Axis order and direction may differ; the voxel centres must not.
    """
    other = other.reoriented(reference.axis_codes)
    if other.data.shape != reference.data.shape:
        return (f"shape {other.data.shape} at {_mm(other.voxel_mm)} mm against {reference.data.shape} "
                f"at {_mm(reference.voxel_mm)} mm")
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in reference.data.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    corners = np.c_[corners, np.ones(len(corners))]
    distance = np.linalg.norm((corners @ (other.affine - reference.affine).T)[:, :3], axis=1).max()
    if distance <= GRID_TOLERANCE * reference.voxel_mm.min():
        return None
    return f"the same shape, but voxel centres up to {distance:.3g} mm apart"


def resample_to(volume: Volume, reference: Volume, *, order: int = 1, fill: float = 0.0) -> Volume:
    """Return `volume` interpolated onto the grid of `reference`.

    A voxel belongs to the volume up to its faces: nearest neighbours reach half a voxel beyond the outermost centres,
    higher orders blend into `fill` over one voxel.

    Parameters
    ----------
    order : int
        0 nearest neighbour (masks and labels), 1 trilinear, 3 cubic spline.
    fill : float
        Value outside the volume.

    Returns
    -------
    Volume
        On the grid of `reference`; floats keep their precision, other types become float64 unless `order` is 0.
    """
    to_source = np.linalg.inv(volume.affine) @ reference.affine
    data = volume.data if order == 0 else np.asarray(volume.data, dtype=np.float64)
    kept = volume.data.dtype if order == 0 or volume.data.dtype == np.float32 else np.float64
    out = ndimage.affine_transform(data, to_source[:3, :3], to_source[:3, 3], output_shape=reference.data.shape,
                                   order=order, mode="grid-constant", cval=fill)
    return volume.replace(data=out.astype(kept, copy=False), affine=reference.affine)


def _mm(sides) -> str:
    return " x ".join(f"{s:.4g}" for s in sides)
