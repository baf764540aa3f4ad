"""Orthonormal bases V in which the process is diagonal: `u = V^T z` (section 3 of the paper)."""

from __future__ import annotations

import gin
import numpy as np
import tensorflow as tf


@gin.register
class DCT:
    """The orthonormal two-dimensional cosine transform, one channel at a time (Eq. 9, 13).

    Images are `[B, H, W, C]` float32 with any `H`, `W` (they may differ) and `C`; coefficients keep
    that shape, the lowest frequency at `[:, 0, 0, :]`.
    """

    def to_frequency(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `u = V^T x`, the DCT-II of both spatial axes."""
        return _on_both_axes(lambda a: tf.signal.dct(a, type=2, norm="ortho"), x)

    def to_pixel(self, u: tf.Tensor) -> tf.Tensor:
        """Returns `x = V u`, the inverse of `to_frequency`."""
        return _on_both_axes(lambda a: tf.signal.idct(a, type=2, norm="ortho"), u)

    def frequencies_squared(self, height: int, width: int) -> tf.Tensor:
        """Returns `lambda_ij = pi^2 (i^2 / H^2 + j^2 / W^2)` as `[H, W, 1]` (Appendix A.1)."""
        rows = np.pi * np.arange(height) / height
        columns = np.pi * np.arange(width) / width
        squared = rows[:, None, None] ** 2 + columns[None, :, None] ** 2
        return tf.constant(squared, tf.float32)


def _on_both_axes(transform, x: tf.Tensor) -> tf.Tensor:
    """Applies a transform of the last axis to H and W of `[B, H, W, C]`."""
    x = transform(tf.transpose(x, [0, 3, 1, 2]))
    x = transform(tf.transpose(x, [0, 1, 3, 2]))
    return tf.transpose(x, [0, 3, 2, 1])
