"""Physics-first sinogram toolkit for PET: projectors, reconstruction, and attention in the projection domain.

Submodules that need heavier packages (`io`, `simulation`, `conventions`) are imported when they are first used.
"""

from importlib import import_module as _import_module

from allpet_physics.acquisition import AcquisitionModel, angle_subsets
from allpet_physics.attention import asymmetry_map, body_mask, edit_roi, project_roi, threshold_roi
from allpet_physics.bsrem import bsrem, bsrem_iterates
from allpet_physics.composites import composite, composite_blocks
from allpet_physics.consistency import count_balance, helgason_ludwig, pn_residual
from allpet_physics.counts import poisson_counts, scale_to_counts, thin
from allpet_physics.emission import mlem, mlem_iterates, osem, osem_iterates
from allpet_physics.errors import EmptyROIWarning, GeometryError, InputError, MetadataError

# The module and its function share the name `fbp`. Importing here, at once, makes the function win for good: a module
# sets itself as an attribute of its package only the first time it is imported.
from allpet_physics.fbp import fbp
from allpet_physics.geometry import ParallelGeometry, scanner_presets
from allpet_physics.mask_projection import normalise_mask, project_blocks, project_mask
from allpet_physics.mask_statistics import mask_statistics, plot_mask_statistics
from allpet_physics.masks import BlockCatalogue, Blocks, DynamicMultiMask, block_catalogue
from allpet_physics.nema import contrast_recovery, plot_contrast_recovery
from allpet_physics.operators import LinearOperator, adjoint_error, assert_adjoint, stack
from allpet_physics.pac_bayes import (
    Certificate,
    best_over_grid,
    binary_kl,
    binary_kl_inverse,
    catoni_bound,
    certified_bound,
    diagonal_gaussian_kl,
    gaussian_kl,
    mcallester_bound,
    monte_carlo_risk_bound,
    seeger_maurer_bound,
    union_over_grid,
)
from allpet_physics.point_spread import GaussianPSF
from allpet_physics.radon import RadonOperator
from allpet_physics.resampling import describe_resampling, resample_sinogram
from allpet_physics.roi2sino import roi2sino
from allpet_physics.scan import Scan, acquire, acquire_projections, attenuation_factors
from allpet_physics.scan_protocol import ScanProtocol

_SUBMODULES = ("conventions", "io", "simulation")

__all__ = [
    "AcquisitionModel",
    "BlockCatalogue",
    "Blocks",
    "Certificate",
    "DynamicMultiMask",
    "EmptyROIWarning",
    "GaussianPSF",
    "GeometryError",
    "InputError",
    "LinearOperator",
    "MetadataError",
    "ParallelGeometry",
    "RadonOperator",
    "Scan",
    "ScanProtocol",
    "acquire",
    "acquire_projections",
    "adjoint_error",
    "angle_subsets",
    "assert_adjoint",
    "asymmetry_map",
    "attenuation_factors",
    "best_over_grid",
    "binary_kl",
    "binary_kl_inverse",
    "block_catalogue",
    "body_mask",
    "bsrem",
    "bsrem_iterates",
    "catoni_bound",
    "certified_bound",
    "composite",
    "composite_blocks",
    "contrast_recovery",
    "conventions",
    "count_balance",
    "describe_resampling",
    "diagonal_gaussian_kl",
    "edit_roi",
    "fbp",
    "gaussian_kl",
    "helgason_ludwig",
    "io",
    "mask_statistics",
    "mcallester_bound",
    "mlem",
    "mlem_iterates",
    "monte_carlo_risk_bound",
    "normalise_mask",
    "osem",
    "osem_iterates",
    "plot_contrast_recovery",
    "plot_mask_statistics",
    "pn_residual",
    "poisson_counts",
    "project_blocks",
    "project_mask",
    "project_roi",
    "resample_sinogram",
    "roi2sino",
    "scale_to_counts",
    "scanner_presets",
    "seeger_maurer_bound",
    "simulation",
    "stack",
    "thin",
    "threshold_roi",
    "union_over_grid",
]


def __getattr__(name: str):
    if name in _SUBMODULES:
        return _import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("allpet")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES, "__version__"])
