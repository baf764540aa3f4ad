"""What a SavedModel restores images with, as TensorFlow functions of fixed-size chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from bdm_tf.data.pipeline import to_uint8, to_unit_range
from bdm_tf.denoiser import Denoiser
from bdm_tf.noise import PRIOR, image_seeds, normal
from bdm_tf.projections import Projection
from bdm_tf.restoration.known import Known, KnownPixels
from bdm_tf.sampling.arguments import draw_checks
from bdm_tf.sampling.sampler import Sampler

REPEATS = 5  # of each step, where something is known: docs/restore.md


def why_not(denoiser: Denoiser, sampler: Sampler) -> str:
    """Why a model restores no images, in words; empty if it does."""
    prior = denoiser.prior
    if prior.is_fitted:
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

    def draw_chunk(first, pixels, unknown, values, variance, t, seed, num_steps, repeats):
        known = Known(values, variance, after=projection)
        denoiser = make_denoiser(KnownPixels(pixels, unknown, after=known))
        seeds = image_seeds(seed, first, chunk_size)
        eps = process.basis.noise(normal(seeds, PRIOR, shape))
        diffused = process.diffuse(pixels, tf.fill([chunk_size], t), eps)
        start = tf.where(t < 1.0, diffused, denoiser.prior.draw(process, seeds, shape)), t
        given = {"seed": seed, "num_steps": num_steps, "first": first, "repeats": repeats}
        return to_uint8(sampler(denoiser, shape=chunk_shape, start=start, **given))

    def number(name):
        return tf.TensorSpec([], tf.int32, name=name)

    chunk = tf.TensorSpec(chunk_shape)
    unknown_pixels = tf.TensorSpec((*chunk_shape[:3], 1), tf.bool)
    t, seed = tf.TensorSpec([], name="t"), tf.TensorSpec([2], tf.int32, name="seed")
    steps, first, repeats = number("num_steps"), number("first"), number("repeats")
    shared = tf.function(
        draw_chunk,
        input_signature=[first, chunk, unknown_pixels, chunk, chunk, t, seed, steps, repeats],
        autograph=False,
    )

    def draw(arrays, t, seed, steps, first, repeats):
        with tf.control_dependencies(_checks(t, seed, steps, first, repeats, arrays[0])):
            steps = tf.where(steps == 0, num_steps, steps)
        return _in_chunks(
            lambda start, *part: shared(start, *part, t, seed, steps, repeats),
            arrays,
            first=first,
            chunk_size=chunk_size,
        )

    def vary(images, t, seed, num_steps=0, first=0):
        x = to_unit_range(images)
        arrays = x, _all_unknown(x), *_nothing_known(x)
        return draw(arrays, t, seed, num_steps, first, tf.constant(1))

    def restore(values, variance, seed, num_steps=0, first=0, repeats=REPEATS):
        check = tf.debugging.assert_non_negative(variance, "variance must not be negative")
        with tf.control_dependencies([check]):
            arrays = tf.zeros_like(values), _all_unknown(values), values, variance
        return draw(arrays, tf.constant(1.0), seed, num_steps, first, repeats)

    def inpaint(images, unknown, seed, num_steps=0, first=0, repeats=REPEATS):
        x = to_unit_range(images)
        arrays = x, unknown[..., None], *_nothing_known(x)
        return draw(arrays, tf.constant(1.0), seed, num_steps, first, repeats)

    def batch(name, dtype):
        dimensions = shape[:2] if dtype == tf.bool else shape
        return tf.TensorSpec((None, *dimensions), dtype, name=name)

    images, unknown = batch("images", tf.uint8), batch("unknown", tf.bool)
    known = [batch(name, tf.float32) for name in ("values", "variance")]
    signatures = {
        vary: [images, t, seed, steps, first],
        restore: [*known, seed, steps, first, repeats],
        inpaint: [images, unknown, seed, steps, first, repeats],
    }
    return {
        function.__name__: tf.function(function, input_signature=signature, autograph=False)
        for function, signature in signatures.items()
    }


def _all_unknown(x: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(x[..., :1], tf.bool)


def _nothing_known(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros_like(x), tf.fill(tf.shape(x), float("inf"))


def _checks(t, seed, num_steps, first, repeats, images) -> list:
    return [
        *draw_checks(seed, num_steps, first, tf.shape(images)[0]),
        tf.debugging.assert_equal((t > 0) & (t <= 1), True, "t must lie in (0, 1]"),
        tf.debugging.assert_positive(repeats, "repeats must be at least 1"),
    ]


def _in_chunks(draw, arrays: Sequence[tf.Tensor], *, first, chunk_size: int) -> tf.Tensor:
    """What `draw(start, *parts)` draws for the rows of arrays, which begin with image `first`.

    Chunks are aligned and padded, so that a row is the same whatever it is drawn with.
    """
    count, before = tf.shape(arrays[0])[0], first % chunk_size
    chunks = (before + count - 1) // chunk_size + 1
    padding = [[before, chunks * chunk_size - before - count], [0, 0], [0, 0], [0, 0]]
    parts = [
        tf.reshape(tf.pad(array, padding), [-1, chunk_size, *array.shape[1:]]) for array in arrays
    ]
    starts = first - before + chunk_size * tf.range(chunks)
    shape = arrays[0].shape[1:]
    drawn = tf.map_fn(
        lambda given: draw(*given),
        (starts, *parts),
        fn_output_signature=tf.TensorSpec((chunk_size, *shape), tf.uint8),
        parallel_iterations=1,
    )
    return tf.reshape(drawn, [-1, *shape])[before : before + count]
