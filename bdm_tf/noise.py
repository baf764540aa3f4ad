"""Random numbers that belong to an image and a step, whatever batch the image is drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

# Named, because the default algorithm draws other numbers on other kinds of device.
ALGORITHM = "philox"
# Draws of the prior: noise, which component, and within it. Steps count from 1.
PRIOR, COMPONENT, WITHIN = 0, -1, -2
_BLOCK = 4  # numbers that Philox makes of one value of its counter


def image_seeds(seed: tf.Tensor, first, count: int) -> tf.Tensor:
    """A seed for each of the images `first ... first + count - 1`: int32 `[count, 2]`."""
    indices = tf.cast(first, tf.int32) + tf.range(count)
    return tf.map_fn(lambda i: fold_in(seed, i), indices, fn_output_signature=tf.int32)


def normal(seeds: tf.Tensor, step, image_shape: Sequence[int]) -> tf.Tensor:
    """Standard normal noise `[count, *image_shape]`, each image from its own seed and `step`."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_normal(image_shape, seed, alg=ALGORITHM),
        # Not the second word: that is the image's number, and steps would run into other images.
        seeds + tf.stack([tf.cast(step, tf.int32), 0]),
        fn_output_signature=tf.float32,
    )


def normal_rows(seed: tf.Tensor, first: int | tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Rows `first ... first + shape[0] - 1` of a batch's standard normal noise, and no others.

    A row is the same, to the bit, whatever rows it is drawn with: Philox is a function of a
    counter, which here begins where the rows do. Outside XLA, whose own numbers differ, they are
    the rows of `tf.random.stateless_normal([batch_size, *shape[1:]], seed)`.

    Args:
        seed: int32 `[2]`.
        first: a scalar integer.
        shape: `(rows, ...)`, static.

    Returns:
        float32 of `shape`.
    """
    row = math.prod(shape[1:])
    start = tf.cast(first, tf.int64) * row
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    blocks = tf.cast(start // _BLOCK, tf.uint64)
    # Whole blocks: rows may begin and end within one. Flat, as XLA pairs along the first even axis.
    most = shape[0] * row + (0 if row % _BLOCK == 0 else _BLOCK - 1)
    drawn = tf.raw_ops.StatelessRandomNormalV2(
        shape=[-(-most // _BLOCK) * _BLOCK],
        key=key,
        counter=counter + tf.stack([blocks, tf.zeros_like(blocks)]),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.float32,
    )
    if row % _BLOCK:
        drawn = tf.slice(drawn, [tf.cast(start % _BLOCK, tf.int32)], [shape[0] * row])
    return tf.reshape(drawn, shape)


def choices(seeds: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """An index int32 `[count]` for each image, drawn in proportion to `weights` `[n]`."""
    uniform = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([], seed, alg=ALGORITHM),
        seeds + tf.constant([COMPONENT, 0]),
        fn_output_signature=tf.float32,
    )
    # In float64: the sum of 50,000 weights would not end at 1 in float32.
    edges = tf.cumsum(tf.cast(weights, tf.float64))
    places = tf.searchsorted(edges, tf.cast(uniform, tf.float64) * edges[-1], side="right")
    return tf.minimum(places, tf.shape(weights)[0] - 1)


def fold_in(seed: tf.Tensor, data) -> tf.Tensor:
    """A new seed int32 `[2]` from `seed` and an integer."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(data, tf.int32), alg=ALGORITHM)
