"""Cells of the benchmarks' tables."""

from collections.abc import Sequence

import numpy as np


def mean_and_range(values: Sequence[float], digits: int = 3) -> str:
    """The mean and, of several values, the least and the most: `0.35 (0.34–0.36)`."""
    mean, low, high = (f"{v:.{digits}f}" for v in (np.mean(values), min(values), max(values)))
    return f"{mean} ({low}–{high})" if len(values) > 1 else mean
