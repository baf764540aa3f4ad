"""The Inception Score (Salimans et al., 2016)."""

from __future__ import annotations

import gin
import numpy as np

from bdm_tf.evaluation.evaluator import Batch, Context, Evaluator, Unavailable, check_samples
from bdm_tf.system.errors import check_counts


@gin.register
class InceptionScore(Evaluator):
    """`exp(E KL(p(y | x) || p(y)))`, mean and standard deviation over splits of the samples.

    Split k holds the samples `k N / splits ... (k + 1) N / splits - 1`, as in the original; only
    sums of each split are kept.

    Args:
        context: see `Context`.
        splits: their number.
    """

    names = ("inception_score",)

    def __init__(self, context: Context, splits: int = 10):
        check_counts("InceptionScore", 1, splits=splits)
        if not context.features.has_logits:
            reason = f"the features {context.features.name!r} have no logits"
            raise Unavailable("inception_score", reason)
        check_samples("inception_score", context, splits, "InceptionScore.splits")
        self._ends = np.arange(1, splits + 1) * context.num_images // splits
        self.start()

    def start(self) -> None:
        self._count = np.zeros(len(self._ends))
        self._negative_entropy = np.zeros(len(self._ends))
        self._probabilities = np.zeros((len(self._ends), 1))  # sums; classes are not known yet

    def update(self, batch: Batch) -> None:
        logits = np.asarray(batch["logits"], np.float64)
        log_p = logits - logits.max(1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        p = np.exp(log_p)
        split = np.searchsorted(self._ends, batch["index"], side="right")
        probabilities = np.zeros((len(self._ends), p.shape[1]))
        np.add.at(probabilities, split, p)
        self._probabilities = self._probabilities + probabilities
        np.add.at(self._count, split, 1.0)
        np.add.at(self._negative_entropy, split, (p * log_p).sum(1))

    def merge(self, other) -> None:
        self._count += other._count
        self._negative_entropy += other._negative_entropy
        self._probabilities = self._probabilities + other._probabilities

    def result(self) -> dict[str, dict]:
        mean_p = self._probabilities / self._count[:, None]
        # A class that never has probability adds 0 log 0 = 0.
        marginal = (mean_p * np.log(np.where(mean_p > 0, mean_p, 1.0))).sum(1)
        scores = np.exp(self._negative_entropy / self._count - marginal)
        return {
            "inception_score": {
                "value": float(scores.mean()),
                "std": float(scores.std()),
                "splits": len(scores),
                "num_generated": int(self._count.sum()),
            }
        }
