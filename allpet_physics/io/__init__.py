"""Reading and writing of images, regions and sinograms."""

from allpet_physics.io.dicom import read_dicom_series
from allpet_physics.io.images import read_image, read_pet
from allpet_physics.io.nifti import read_nifti, write_nifti
from allpet_physics.io.patient import SUVInputs, body_size
from allpet_physics.io.volume import Volume, grid_mismatch, resample_to

__all__ = [
    "SUVInputs",
    "Volume",
    "body_size",
    "grid_mismatch",
    "read_dicom_series",
    "read_image",
    "read_nifti",
    "read_pet",
    "resample_to",
    "write_nifti",
]
