"""Reading and writing of images, regions and sinograms."""

from allpet_physics.io.dicom import read_dicom_series
from allpet_physics.io.images import read_image, read_pet
from allpet_physics.io.interfile import (
    InterfileSinogram,
    read_interfile_image,
    read_interfile_sinogram,
    write_interfile_image,
    write_interfile_sinogram,
)
from allpet_physics.io.nifti import read_nifti, write_nifti
from allpet_physics.io.patient import SUVInputs, body_size
from allpet_physics.io.roi_files import ROI, list_rois, read_roi, roi_to_volume, write_roi
from allpet_physics.io.sinogram_files import SinogramStack, read_sinogram, write_sinogram
from allpet_physics.io.volume import Volume, grid_mismatch, resample_to

__all__ = [
    "ROI",
    "InterfileSinogram",
    "SUVInputs",
    "SinogramStack",
    "Volume",
    "body_size",
    "grid_mismatch",
    "list_rois",
    "read_dicom_series",
    "read_image",
    "read_interfile_image",
    "read_interfile_sinogram",
    "read_nifti",
    "read_pet",
    "read_roi",
    "read_sinogram",
    "resample_to",
    "roi_to_volume",
    "write_interfile_image",
    "write_interfile_sinogram",
    "write_nifti",
    "write_roi",
    "write_sinogram",
]
