"""What is measured: distances between sets, EF agreement, image fidelity, separability."""

from echosyn.metrics.ef import ef_scores, requested_vs_measured
from echosyn.metrics.features import (
    EfNet,
    FeatureSpace,
    RandomFeatures2d,
    RandomFeatures3d,
    distance_name,
)
from echosyn.metrics.frechet import frechet_distance, frechet_from_moments, frechet_interval
from echosyn.metrics.image import psnr_db, ssim
from echosyn.metrics.interval import Estimate
from echosyn.metrics.kernel import kernel_distance
from echosyn.metrics.prdc import prdc
from echosyn.metrics.roc import Roc, auc_interval

__all__ = [
    "EfNet",
    "Estimate",
    "FeatureSpace",
    "RandomFeatures2d",
    "RandomFeatures3d",
    "Roc",
    "auc_interval",
    "distance_name",
    "ef_scores",
    "frechet_distance",
    "frechet_from_moments",
    "frechet_interval",
    "kernel_distance",
    "prdc",
    "psnr_db",
    "requested_vs_measured",
    "ssim",
]
