"""What a SavedModel restores images with, as TensorFlow functions of fixed-size chunks."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bdm_tf.data.pipeline import to_uint8, to_unit_range
from bdm_tf.denoiser import Denoiser
from bdm_tf.noise import PRIOR, image_seeds, normal
from bdm_tf.priors import StandardNormal
from bdm_tf.projections import Projection
from bdm_tf.restoration.known import Known, KnownPixels
from bdm_tf.sampling.sampler import Sampler


def why_not(denoiser: Denoiser, sampler: Sampler) -> str:
    """Why a model restores no images, in words; empty if it does."""
    prior = denoiser.prior
    if not isinstance(prior, StandardNormal):
        return f"its samples begin in {type(prior).__name__}, not in noise"
    if denoiser.process.is_deterministic:
        return "it has no noise"
    if sampler.allowed_steps(denoiser.process)[1] is not None:
        return f"it takes {sampler.about_steps(denoiser.process)}"
    return ""


def restoring_functions(
    make_denoiser: Callable[[Projection], Denoiser],
    sampler: Sampler,
    projection: Projection,
    *,
    num_steps: int,
    chunk_size: int,
) -> dict[str, Callable]:
    """The functions `vary`, `restore` and `inpaint`, which share one graph of the sampler.

    Args:
        make_denoiser: makes a denoiser with a projection.
        sampler: the sampler.
        projection: the model's own.
        num_steps: what 0 steps stand for.
        chunk_size: images drawn at a time, see `ExportedModel`.
    """
    process = make_denoiser(projection).process
    shape = process.image_shape
    chunk_shape = (chunk_size, *shape)

    def draw_chunk(first, pixels, unknown, values, variance, t, seed, num_steps):
        known = Known(values, variance, after=projection)
        denoiser = make_denoiser(KnownPixels(pixels, unknown, after=known))
        seeds = image_seeds(seed, first, chunk_size)
        eps = process.basis.noise(normal(seeds, PRIOR, shape))
        diffused = process.diffuse(pixels, tf.fill([chunk_size], t), eps)
        start = tf.where(t < 1.0, diffused, eps), t
        x = sampler(
            denoiser, shape=chunk_shape, seed=seed, num_steps=num_steps, first=first, start=start
        )
        return to_uint8(x)

    chunk = tf.TensorSpec(chunk_shape)
    shared = tf.function(
        draw_chunk,
        input_signature=[
            tf.TensorSpec([], tf.int32),
            chunk,
            tf.TensorSpec((*chunk_shape[:3], 1), tf.bool),
            chunk,
            chunk,
            tf.TensorSpec([]),
            tf.TensorSpec([2], tf.int32),
            tf.TensorSpec([], tf.int32),
        ],
        autograph=False,
    )

    def draw(pixels, unknown, values, variance, *, t, seed, steps, first):
        """Draws as many images as there are, in chunks that are aligned and padded."""
        count = tf.shape(pixels)[0]
        last = tf.constant(2**31 - 1)
        checks = [
            tf.debugging.assert_positive(count, "give at least one image"),
            tf.debugging.assert_non_negative(steps, "num_steps must not be negative"),
            tf.debugging.assert_non_negative(first, "first must not be negative"),
            tf.debugging.assert_non_negative(seed, "seed must not be negative"),
            tf.debugging.assert_less_equal(
                first, last - count, "first + the number of images must be at most 2^31 - 1"
            ),
            tf.debugging.assert_equal((t > 0) & (t <= 1), True, "t must lie in (0, 1]"),
        ]
        with tf.control_dependencies(checks):
            steps = tf.where(steps == 0, num_steps, steps)
            before = first % chunk_size
        chunks = (before + count - 1) // chunk_size + 1
        padding = [[before, chunks * chunk_size - before - count], [0, 0], [0, 0], [0, 0]]

        def in_chunks(array):
            padded = tf.pad(array, padding)
            return tf.reshape(padded, [-1, chunk_size, *array.shape[1:]])

        drawn = tf.map_fn(
            lambda part: shared(*part, t, seed, steps),
            (
                first - before + chunk_size * tf.range(chunks),
                *map(in_chunks, (pixels, unknown, values, variance)),
            ),
            fn_output_signature=tf.TensorSpec(chunk_shape, tf.uint8),
            parallel_iterations=1,
        )
        return tf.reshape(drawn, [-1, *shape])[before : before + count]

    def nothing_known(pixels):
        return tf.zeros_like(pixels), tf.fill(tf.shape(pixels), float("inf"))

    def all_unknown(pixels):
        return tf.ones_like(pixels[..., :1], tf.bool)

    def vary(images, t, seed, num_steps=0, first=0):
        x = to_unit_range(images)
        given = {"t": t, "seed": seed, "steps": num_steps, "first": first}
        return draw(x, all_unknown(x), *nothing_known(x), **given)

    def restore(values, variance, seed, num_steps=0, first=0):
        given = {"t": tf.constant(1.0), "seed": seed, "steps": num_steps, "first": first}
        check = tf.debugging.assert_non_negative(variance, "variance must not be negative")
        with tf.control_dependencies([check]):
            values = tf.identity(values)
        return draw(tf.zeros_like(values), all_unknown(values), values, variance, **given)

    def inpaint(images, unknown, seed, num_steps=0, first=0):
        x = to_unit_range(images)
        given = {"t": tf.constant(1.0), "seed": seed, "steps": num_steps, "first": first}
        return draw(x, unknown[..., None], *nothing_known(x), **given)

    def spec(name, dtype, *dimensions):
        return tf.TensorSpec(dimensions, dtype, name=name)

    batch = (None, *shape)
    last = [spec("seed", tf.int32, 2), spec("num_steps", tf.int32), spec("first", tf.int32)]
    images = spec("images", tf.uint8, *batch)
    signatures = {
        vary: [images, spec("t", tf.float32), *last],
        restore: [
            spec("values", tf.float32, *batch),
            spec("variance", tf.float32, *batch),
            *last,
        ],
        inpaint: [images, spec("unknown", tf.bool, *batch[:3]), *last],
    }
    return {
        function.__name__: tf.function(function, input_signature=signature, autograph=False)
        for function, signature in signatures.items()
    }
