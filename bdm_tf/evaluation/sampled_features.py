"""Features of the first samples, kept for the metrics that compare single images."""

from __future__ import annotations

import numpy as np

from bdm_tf.evaluation.evaluator import Batch, Evaluator


class SampledFeatures(Evaluator):
    """Keeps the features of samples 0 to `max_images` - 1; what is made of them is a subclass's.

    Args:
        max_images: how many samples are kept.
    """

    def __init__(self, max_images: int):
        self._max_images = max_images
        self.start()

    def start(self) -> None:
        self._rows: dict[int, np.ndarray] = {}

    def update(self, batch: Batch) -> None:
        for index, row in zip(batch["index"], batch["features"]):
            if index < self._max_images:
                self._rows[int(index)] = row

    def merge(self, other) -> None:
        self._rows.update(other._rows)

    def _drawn(self) -> np.ndarray:
        """float32 `[n, d]`, in the order of the samples' numbers."""
        return np.stack([self._rows[index] for index in sorted(self._rows)])
