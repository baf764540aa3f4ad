"""Features of the first samples, kept for the metrics that compare single images."""

from __future__ import annotations

import numpy as np

from bdm_tf.evaluation.evaluator import Batch


class SampledFeatures:
    """Keeps the features of samples 0 to `limit` - 1, in the order of their numbers."""

    def __init__(self, limit: int):
        self._limit = limit
        self._rows: dict[int, np.ndarray] = {}

    def update(self, batch: Batch) -> None:
        for index, row in zip(batch["index"], batch["features"]):
            if index < self._limit:
                self._rows[int(index)] = row

    def merge(self, other: SampledFeatures) -> None:
        self._rows.update(other._rows)

    def array(self) -> np.ndarray:
        """float32 `[n, d]`."""
        return np.stack([self._rows[index] for index in sorted(self._rows)])
