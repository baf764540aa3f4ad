"""Random numbers that belong to an image and a step, whatever batch the image is drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# Named, because the default algorithm draws other numbers on other kinds of device.
ALGORITHM = "philox"
# Draws of the prior: noise, which component, and within it. Steps count from 1.
PRIOR, COMPONENT, WITHIN = 0, -1, -2


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
