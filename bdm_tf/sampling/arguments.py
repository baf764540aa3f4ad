"""Whether what a sampler is called with can be."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from bdm_tf.system.errors import UserError, check_between, check_counts, is_whole

_MOST = "2^31 - 1"


def checked_seed(process, shape: tuple, seed, first) -> tf.Tensor:
    """The seed as a tensor, if with the others it is what `Sampler` takes."""
    if len(shape) != 4 or not is_whole(shape[0]) or shape[0] < 1:
        raise UserError(f"{shape=} must be (n, H, W, C), n at least 1")
    if shape[1:] != tuple(process.image_shape):
        raise UserError(f"{shape=}, but the model's images are of shape {process.image_shape}")
    if not tf.is_tensor(first) and not (is_whole(first) and 0 <= first < 2**31 - shape[0]):
        raise UserError(f"{first=} must be a whole number, and the last image's below 2^31 - 1")
    if not tf.is_tensor(seed):
        numbers = np.asarray(seed)
        if numbers.shape != (2,) or not all(is_whole(n) and 0 <= n < 2**31 for n in numbers):
            raise UserError(f"{seed=} must be two whole numbers from 0 to 2^31 - 1")
        return tf.constant(numbers, tf.int32)
    if seed.shape != (2,) or seed.dtype != tf.int32:
        raise UserError(f"seed is {seed.dtype.name} {seed.shape}, must be int32 [2]")
    return seed


def draw_checks(seed, num_steps, first, num_images) -> list:
    """What fails, when a SavedModel's graph runs, for int32 tensors that no images are drawn by.

    TensorFlow makes negative numbers of those that are too large for int32.
    """
    return [
        tf.debugging.assert_positive(num_images, f"num_images must be from 1 to {_MOST}"),
        tf.debugging.assert_non_negative(seed, f"seed must be two whole numbers from 0 to {_MOST}"),
        tf.debugging.assert_non_negative(num_steps, f"num_steps must be from 0 to {_MOST}"),
        tf.debugging.assert_non_negative(first, f"first must be from 0 to {_MOST}"),
        tf.debugging.assert_less_equal(
            first, 2**31 - 1 - num_images, "first + num_images must be at most 2^31 - 1"
        ),
    ]


def checked_start(sampler, process, start, shape: tuple) -> tuple[tf.Tensor, tf.Tensor]:
    """z_t and t to begin at, as tensors.

    Raises:
        UserError: they have other shapes, or the model begins at t = 1 alone and t is not that.
    """
    z_t, t = start
    begins_at_1 = not tf.is_tensor(t) and t == 1
    if not begins_at_1 and sampler.allowed_steps(process)[1] is not None:
        raise UserError(
            f"start: {type(sampler).__name__} and this model take {sampler.about_steps(process)}, "
            "and begin at t = 1 alone"
        )
    if not tf.is_tensor(t):
        check_between("start's t", t, 0, 1, without_low=True)
    z_t, t = tf.convert_to_tensor(z_t, tf.float32), tf.convert_to_tensor(t, tf.float32)
    if z_t.shape != shape or t.shape != ():
        raise UserError(f"start has shapes {z_t.shape} and {t.shape}, must be {shape} and ()")
    return z_t, t


def check_repeats(sampler, process, repeats: int | tf.Tensor) -> None:
    """Raises a `UserError` if steps cannot be repeated so often, or not at all."""
    if not tf.is_tensor(repeats):
        check_counts("sampler", 1, repeats=repeats)
    if process.is_deterministic or sampler.allowed_steps(process)[1] is not None:
        raise UserError(
            "repeats: z_s is diffused to t again in continuous time and with noise alone; this "
            "model has K steps or no noise"
        )
