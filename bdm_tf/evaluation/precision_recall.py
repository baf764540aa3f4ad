"""Improved precision and recall (Kynkaanniemi et al., 2019)."""

from __future__ import annotations

from collections.abc import Iterator

import gin
import numpy as np

from bdm_tf.evaluation.evaluator import Context, Unavailable, check_samples, check_split
from bdm_tf.evaluation.sampled_features import SampledFeatures
from bdm_tf.system.errors import check_counts


def precision_recall(
    generated: np.ndarray, real: np.ndarray, neighbours: int = 3, chunk: int = 1000
) -> tuple[float, float]:
    """Which share of each set lies within the manifold of the other.

    A set's manifold is the union of balls around its rows, each reaching to the row's k-th nearest
    neighbour within the set. Distances are float64, a chunk of rows at a time.

    Args:
        generated, real: features `[n, d]` and `[m, d]`.
        neighbours: k.
        chunk: rows whose distances are held at once.

    Returns:
        Precision (generated rows within the real manifold) and recall (the other way round).
    """
    real_radii = _squared_radii(real, neighbours, chunk)
    generated_radii = _squared_radii(generated, neighbours, chunk)
    return (
        _covered(generated, real, real_radii, chunk),
        _covered(real, generated, generated_radii, chunk),
    )


def _covered(rows, centres, squared_radii, chunk) -> float:
    hits = [(d <= squared_radii).any(1) for d in _squared_distances(rows, centres, chunk)]
    return float(np.concatenate(hits).mean())


def _squared_radii(rows, neighbours, chunk) -> np.ndarray:
    # A row's nearest neighbour in its own set is itself, at distance 0.
    chunks = _squared_distances(rows, rows, chunk)
    return np.concatenate([np.partition(d, neighbours, axis=1)[:, neighbours] for d in chunks])


def _squared_distances(a, b, chunk) -> Iterator[np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.sum(b**2, 1)
    for start in range(0, len(a), chunk):
        part = a[start : start + chunk]
        yield np.maximum(np.sum(part**2, 1)[:, None] + norms - 2.0 * part @ b.T, 0.0)


@gin.register
class PrecisionRecall(SampledFeatures):
    """Improved precision and recall of samples against a split: "precision_SPLIT", "recall_SPLIT".

    Args:
        context: see `Context`.
        split: "train" or "eval".
        neighbours: k.
        max_images: at most so many samples, and as many real images, are used.
    """

    def __init__(
        self,
        context: Context,
        split: str = "train",
        neighbours: int = 3,
        max_images: int = 10_000,
    ):
        self.names = f"precision_{split}", f"recall_{split}"
        check_counts("PrecisionRecall", 1, neighbours=neighbours)
        check_counts("PrecisionRecall", neighbours + 1, max_images=max_images)
        for name in self.names:
            check_split(name, context, split, images=True)
        check_samples(self.names[0], context, neighbours + 1, "PrecisionRecall.neighbours + 1")
        self._described = context.reference.describe(split)
        self._real = context.reference.features(split, max_images)
        if len(self._real) <= neighbours:
            reason = f"the {split} split has {len(self._real)} images"
            raise Unavailable(self.names[0], f"{reason}, too few for PrecisionRecall.{neighbours=}")
        self._neighbours = neighbours
        super().__init__(max_images)

    def result(self) -> dict[str, dict]:
        drawn = self._drawn()
        values = precision_recall(drawn, self._real, self._neighbours)
        shared = {
            "neighbours": self._neighbours,
            "num_generated": len(drawn),
            "num_real": len(self._real),
            **self._described,
        }
        return {k: {"value": v, **shared} for k, v in zip(self.names, values)}
