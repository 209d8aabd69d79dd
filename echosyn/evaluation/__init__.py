"""A synthetic dataset measured against the real one: EF, image and motion quality, coverage."""

from echosyn.evaluation.config import EvaluateConfig
from echosyn.evaluation.ef import EfEvaluation
from echosyn.evaluation.privacy import privacy_numbers
from echosyn.evaluation.protocol import ProtocolEvaluation
from echosyn.evaluation.quality import QualityEvaluation, Sets

__all__ = [
    "EfEvaluation",
    "EvaluateConfig",
    "ProtocolEvaluation",
    "QualityEvaluation",
    "Sets",
    "privacy_numbers",
]
