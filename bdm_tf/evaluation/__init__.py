"""How good samples and weights are; each metric a file, put together by `job.py`."""

from bdm_tf.evaluation.features import InceptionFeatures, PixelFeatures, SavedModelFeatures
from bdm_tf.evaluation.frechet import FrechetDistance, FrechetFloor
from bdm_tf.evaluation.inception_score import InceptionScore
from bdm_tf.evaluation.kernel_distance import KernelDistance
from bdm_tf.evaluation.label_accuracy import LabelAccuracy
from bdm_tf.evaluation.model_scores import BitsPerDimension, EvalLoss
from bdm_tf.evaluation.precision_recall import PrecisionRecall

__all__ = [
    "BitsPerDimension",
    "EvalLoss",
    "FrechetDistance",
    "FrechetFloor",
    "InceptionFeatures",
    "InceptionScore",
    "KernelDistance",
    "LabelAccuracy",
    "PixelFeatures",
    "PrecisionRecall",
    "SavedModelFeatures",
]
