"""The Frechet distance between Gaussians fitted to features (FID, with Inception's features)."""

from __future__ import annotations

import gin
import numpy as np

from bdm_tf.evaluation.evaluator import (
    NOTHING,
    Batch,
    Context,
    Evaluator,
    check_samples,
    check_split,
)
from bdm_tf.evaluation.statistics import GaussianStatistics


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """`|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))` (Heusel et al., 2017).

    The trace of the root is the sum of the singular values of `R_a R_b^T`, where `R^T R = S`. That
    stays exact where a covariance is singular, as it is with fewer images than dimensions; the
    root of a product does not.
    """
    cross = np.linalg.svd(_root(a.sigma) @ _root(b.sigma).T, compute_uv=False).sum()
    spread = np.trace(a.sigma) + np.trace(b.sigma)
    return float(np.sum((a.mu - b.mu) ** 2) + spread - 2.0 * cross)


def _root(sigma: np.ndarray) -> np.ndarray:
    """R `[rank, d]` with `R^T R = sigma`; eigenvalues that are rounding are left out."""
    values, vectors = np.linalg.eigh(sigma)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


@gin.register
class FrechetDistance(Evaluator):
    """The Frechet distance of samples to a split: "fid_SPLIT" with Inception's features.

    With other features the name says so: "fd_FEATURES_SPLIT". They are different measures.

    Args:
        context: see `Context`.
        split: "train" or "eval".
    """

    def __init__(self, context: Context, split: str = "train"):
        name = f"{context.features.frechet_name}_{split}"
        check_split(name, context, split)
        check_samples(name, context, 2)
        self.names = (name,)
        self._described = context.reference.describe_statistics(split)
        self._real = context.reference.statistics(split)
        self.start()

    def start(self) -> None:
        self._drawn = GaussianStatistics(len(self._real.mu))

    def update(self, batch: Batch) -> None:
        self._drawn.update(batch["features"])

    def merge(self, other) -> None:
        self._drawn.merge(other._drawn)

    def result(self) -> dict[str, dict]:
        figure = {
            "value": frechet_distance(self._drawn, self._real),
            "num_generated": self._drawn.count,
            "num_real": self._real.count or "not known",
            **self._described,
        }
        counts = [count for count in (self._drawn.count, self._real.count) if count]
        if min(counts) <= len(self._real.mu):
            figure["note"] = "fewer images than dimensions: compare equal counts only"
        return {self.names[0]: figure}


@gin.register
class FrechetFloor(Evaluator):
    """The Frechet distance of the evaluation split to the training split.

    New images of the same kind lie that far off; a model that does not copy can do no better by
    much, at these counts.
    """

    consumes = NOTHING

    def __init__(self, context: Context):
        name = f"{context.features.frechet_name}_eval_to_train"
        for split in ("train", "eval"):
            check_split(name, context, split)
        self.names = (name,)
        self._described = context.reference.describe_statistics("train")
        self._train, self._eval = map(context.reference.statistics, ("train", "eval"))

    def start(self) -> None:
        """There is nothing to forget."""

    def update(self, batch: Batch) -> None:
        """Samples do not matter here."""

    def merge(self, other) -> None:
        """Nor do they there."""

    def result(self) -> dict[str, dict]:
        figure = {
            "value": frechet_distance(self._eval, self._train),
            "num_eval": self._eval.count or "not known",
            "num_real": self._train.count or "not known",
            **self._described,
        }
        return {self.names[0]: figure}
