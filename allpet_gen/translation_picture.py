"""The picture of a translation: source, estimate, spread and truth of some slices, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from allpet_gen.pictures import Panel, contact_sheet
from allpet_physics.geometry import ParallelGeometry

#: Rows that are shown at most: slices of each target, spread over all.
_ROWS = 6


@dataclass(frozen=True, eq=False)
class Column:
    """What stands in one column of the picture.

    Attributes
    ----------
    title : str
    sinograms : ndarray, shape (n, targets or 1, angle, bin)
    images : ndarray or None, shape (n, targets or 1, row, col)
    scale : str
        Columns of one scale share their greys within a row.
    totals : bool
        Whether to write the counts of each sinogram.
    """

    title: str
    sinograms: np.ndarray
    images: np.ndarray | None
    scale: str
    totals: bool = True


def translation_picture(path, columns: Sequence[Column], geometry: ParallelGeometry, names: Sequence[str],
                        targets: Sequence[str], *, title: str, subtitle: str = "",
                        image_unit: str = "counts/mm") -> None:
    """Save a picture with a row for each slice and target; of many slices some, spread over all.

    Parameters
    ----------
    path : path-like
    columns : sequence of Column
    geometry : ParallelGeometry
    names : sequence of str
        Of the slices.
    targets : sequence of str
        Of the targets; one empty text where there is one.
    title, subtitle, image_unit : str
    """
    panels = []
    for i in _spread_over(len(names), max(1, _ROWS // len(targets))):
        for k, target in enumerate(targets):
            for column in columns:
                of = min(k, column.sinograms.shape[1] - 1)
                sinogram = column.sinograms[i, of]
                lines = [names[i]] if column is columns[0] else []
                lines += [f"{sinogram.sum(dtype=np.float64):,.0f} counts"] if column.totals else []
                heading = f"{column.title}, {target}" if target and column.sinograms.shape[1] > 1 else column.title
                panels.append(Panel(sinogram, None if column.images is None else column.images[i, of], heading,
                                    tuple(lines), f"{i} {k}", column.scale))
    contact_sheet(path, panels, geometry, columns=len(columns), beside=True, title=title,
                  subtitle=subtitle, image_unit=image_unit)


def _spread_over(n: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()
