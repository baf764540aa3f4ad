"""Random numbers that belong to an image and a step, whatever batch the image is drawn in."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# Named, because the default algorithm draws other numbers on other kinds of device.
ALGORITHM = "philox"
PRIOR = 0  # the draw of z_1; steps count from 1


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


def fold_in(seed: tf.Tensor, data) -> tf.Tensor:
    """A new seed int32 `[2]` from `seed` and an integer."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(data, tf.int32), alg=ALGORITHM)


def checked_num_steps(num_steps) -> tf.Tensor:
    """`num_steps` as an int32 tensor.

    Raises:
        ValueError: it is a Python number below 1 (a tensor is checked when the graph runs).
    """
    if isinstance(num_steps, int) and num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be at least 1")
    num_steps = tf.convert_to_tensor(num_steps, tf.int32)
    check = tf.debugging.assert_positive(num_steps, "num_steps must be at least 1")
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(num_steps)
