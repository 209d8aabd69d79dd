"""A synthetic dataset measured against the real one: EF, image and motion quality."""

from echosyn.evaluation.beat import BeatEvaluation
from echosyn.evaluation.config import EvaluateConfig
from echosyn.evaluation.dataset import Evaluated, Folders, evaluate_dataset
from echosyn.evaluation.ef import EfEvaluation
from echosyn.evaluation.protocol import ProtocolEvaluation
from echosyn.evaluation.quality import QualityEvaluation, Sets

__all__ = [
    "BeatEvaluation",
    "EfEvaluation",
    "EvaluateConfig",
    "Evaluated",
    "Folders",
    "ProtocolEvaluation",
    "QualityEvaluation",
    "Sets",
    "evaluate_dataset",
]
