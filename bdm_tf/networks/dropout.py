"""Dropout (Srivastava et al., 2014) whose random numbers cost half of what they usually do.

Rates are rounded to a multiple of 2^-16.
"""

from __future__ import annotations

import tensorflow as tf

_DRAWS = 2**16  # values of half a uint32


def draw(shape, seed: tf.Tensor) -> tf.Tensor:
    """Random numbers for images of a static shape, uint32, one for two images."""
    half = [(shape[0] + 1) // 2, *shape[1:]]
    return tf.random.stateless_uniform(half, seed, minval=None, maxval=None, dtype=tf.uint32)


def kept(draws: tf.Tensor, count: int, rate: float) -> tf.Tensor:
    """What is not dropped of `count` images, bool `[count, H, W, C]`."""
    halves = tf.concat([draws & (_DRAWS - 1), tf.bitwise.right_shift(draws, 16)], axis=0)
    return tf.cast(halves[:count], tf.int32) >= _least(rate)


def of_kept(x: tf.Tensor, is_kept: tf.Tensor, rate: float) -> tf.Tensor:
    """`x` where it is kept, scaled so that its mean stays."""
    scale = tf.constant(_DRAWS / (_DRAWS - _least(rate)), x.dtype)
    return tf.where(is_kept, x * scale, tf.zeros([], x.dtype))


def _least(rate: float) -> int:
    """Draws below it are dropped."""
    return round(rate * _DRAWS)
