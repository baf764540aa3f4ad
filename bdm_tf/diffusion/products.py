"""Matrices times images to float32, on hardware that rounds the factors of its products."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# The sign, the exponent and the first 7 bits of a float32's mantissa: what a bfloat16 has.
_BFLOAT16_BITS = -(1 << 16)
# Pairs of parts whose product counts in float32, the smallest first; 0 is the largest part.
_PAIRS = ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0))


def float64_product(rows: np.ndarray, columns: np.ndarray, x: tf.Tensor) -> tf.Tensor:
    """`rows x columns^T` for each channel of float32 `[B, H, W, C]`, computed in float64."""
    wide = tf.einsum("ih,bhwc->biwc", rows, tf.cast(x, tf.float64))
    return tf.cast(tf.einsum("jw,biwc->bijc", columns, wide), tf.float32)


def orthonormal_product(rows: np.ndarray, columns: np.ndarray, x: tf.Tensor) -> tf.Tensor:
    """`rows x columns^T` for each channel, of orthonormal matrices, in float32.

    A TPU rounds a float32 product's factors to bfloat16, an NVIDIA GPU to TF32, unless the whole
    process says otherwise. So each factor is cut into three parts that bfloat16 holds exactly, and
    the six products of parts that count are summed in float32, as one product of longer rows.

    Args:
        rows: float64 `[H, H]`.
        columns: float64 `[W, W]`.
        x: float32 `[B, H, W, C]`.
    """

    @tf.custom_gradient
    def product(x):
        u = _in_parts("ih,bhwc->biwc", rows, x, axis=1)
        u = _in_parts("jw,biwc->bijc", columns, u, axis=2)
        return u, lambda upstream: orthonormal_product(rows.T, columns.T, upstream)

    return product(x)


def _in_parts(equation: str, matrix: np.ndarray, x: tf.Tensor, axis: int) -> tf.Tensor:
    of_matrix, of_x = _parts(tf.constant(matrix, tf.float32)), _parts(x)
    longer = tf.concat([of_matrix[i] for i, _ in _PAIRS], axis=1)
    return tf.einsum(equation, longer, tf.concat([of_x[j] for _, j in _PAIRS], axis=axis))


def _parts(x: tf.Tensor) -> list[tf.Tensor]:
    """Three float32 tensors of 8 significant bits each, whose sum is x.

    Cut by a mask: a compiler may leave out a cast to bfloat16 and back.
    """
    found = []
    for _ in range(3):
        bits = tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), _BFLOAT16_BITS)
        found.append(tf.bitcast(bits, tf.float32))
        x = x - found[-1]
    return found
