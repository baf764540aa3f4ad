"""Mean and covariance of features, gathered a batch at a time in float64."""

from __future__ import annotations

import numpy as np


class GaussianStatistics:
    """Count, mean and covariance of rows, without keeping the rows.

    Batches are merged by the pairwise formulas of Chan, Golub & LeVeque (1979), which do not
    cancel as sums of squares do, so that order and grouping change the last digits only.

    Args:
        dimensions: the length of a row.
    """

    def __init__(self, dimensions: int):
        self.count = 0
        self.mu = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))

    @classmethod
    def of(cls, count: int, mu: np.ndarray, sigma: np.ndarray) -> GaussianStatistics:
        """Statistics known from elsewhere: mean `[d]` and unbiased covariance `[d, d]`."""
        known = cls(len(mu))
        known.count, known.mu = count, np.asarray(mu, np.float64)
        known._scatter = np.asarray(sigma, np.float64) * max(count - 1, 1)
        return known

    @property
    def sigma(self) -> np.ndarray:
        """The unbiased covariance, float64 `[d, d]`."""
        return self._scatter / max(self.count - 1, 1)

    def update(self, rows: np.ndarray) -> None:
        """Takes in rows `[n, d]`."""
        rows = np.asarray(rows, np.float64)
        if len(rows):
            mean = rows.mean(0)
            centred = rows - mean
            self._add(len(rows), mean, centred.T @ centred)

    def merge(self, other: GaussianStatistics) -> None:
        """Takes in all rows that `other` has seen."""
        if other.count:
            self._add(other.count, other.mu, other._scatter)

    def _add(self, count, mean, scatter):
        total = self.count + count
        shift = mean - self.mu
        self._scatter += scatter + np.outer(shift, shift) * (self.count * count / total)
        self.mu = self.mu + shift * (count / total)
        self.count = total
