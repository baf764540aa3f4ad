"""The kernel distance (KID with Inception's features; Binkowski et al., 2018)."""

from __future__ import annotations

import gin
import numpy as np

from bdm_tf.evaluation.evaluator import Context, Unavailable, check_samples, check_split
from bdm_tf.evaluation.sampled_features import SampledFeatures
from bdm_tf.system.errors import check_counts, check_seed

_MOST = 10**6  # subsets


def squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of rows, kernel `(a.b / d + 1)^3`, in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    def mean_of_pairs(x):
        k = kernel(x, x)
        return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))

    return mean_of_pairs(a) + mean_of_pairs(b) - 2.0 * kernel(a, b).mean()


def kernel_distance(
    generated: np.ndarray, real: np.ndarray, *, subsets: int, subset_size: int, seed: int
) -> tuple[float, float]:
    """Mean and standard deviation of `squared_mmd` over random subsets of equal size.

    The subsets are those of torch-fidelity for the same seed: `RandomState(seed).choice` without
    replacement, the generated rows first.
    """
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        a = generated[random.choice(len(generated), subset_size, replace=False)]
        b = real[random.choice(len(real), subset_size, replace=False)]
        values.append(squared_mmd(a, b))
    return float(np.mean(values)), float(np.std(values))


@gin.register
class KernelDistance(SampledFeatures):
    """The kernel distance of samples to a split: "kid_SPLIT", or "kd_FEATURES_SPLIT".

    Args:
        context: see `Context`.
        split: "train" or "eval".
        subsets, subset_size, seed: see `kernel_distance`.
        max_images: at most so many samples, and as many real images, are used.
    """

    def __init__(
        self,
        context: Context,
        split: str = "train",
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 2020,
        max_images: int = 10_000,
    ):
        name = f"{context.features.kernel_name}_{split}"
        check_counts("KernelDistance", 1, _MOST, subsets=subsets)
        check_counts("KernelDistance", 2, subset_size=subset_size)
        check_counts("KernelDistance", subset_size, max_images=max_images)
        check_seed("KernelDistance.seed", seed)
        check_split(name, context, split, images=True)
        check_samples(name, context, subset_size, "KernelDistance.subset_size")
        self._described = context.reference.describe(split)
        self._real = context.reference.features(split, max_images)
        if len(self._real) < subset_size:
            reason = f"the {split} split has {len(self._real)} images"
            raise Unavailable(name, f"{reason}, fewer than KernelDistance.{subset_size=}")
        self.names = (name,)
        self._settings = dict(subsets=subsets, subset_size=subset_size, seed=seed)
        super().__init__(max_images)

    def result(self) -> dict[str, dict]:
        drawn = self._drawn()
        mean, std = kernel_distance(drawn, self._real, **self._settings)
        figure = {
            "value": mean,
            "std": std,
            "num_generated": len(drawn),
            "num_real": len(self._real),
            **self._settings,
            **self._described,
        }
        return {self.names[0]: figure}
