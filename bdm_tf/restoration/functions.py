"""What a SavedModel restores images with, as TensorFlow functions of fixed-size chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from bdm_tf.classes import ANY_CLASS, Classes, given_checks, label_checks, labels_spec, listed
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
    if not prior.begins_in_noise:
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
    classes: Classes | None = None,
    guidance: float = 1.0,
    guidance_interval: Sequence[float] | None = None,
) -> dict[str, Callable]:
    """The functions `vary`, `restore` and `inpaint`, which share one graph of the sampler.

    Args:
        make_denoiser: makes a denoiser with a projection.
        sampler: the sampler.
        projection: the model's own.
        num_steps: what 0 steps stand for.
        chunk_size: images drawn at a time, see `ExportedModel`.
        classes: of images with labels. The functions then take `label`, int32 `[]`, `[1]` or one an
            image, -1 for none, and `guidance`.
        guidance, guidance_interval: the model's own, see `SampleSettings`.
    """
    process = make_denoiser(projection).process
    shape = process.image_shape
    chunk_shape = (chunk_size, *shape)

    def draw_chunk(
        first, pixels, unknown, values, variance, label, t, seed, num_steps, repeats, guidance
    ):
        known = Known(values, variance, after=projection)
        denoiser = make_denoiser(KnownPixels(pixels, unknown, after=known))
        if classes:
            label = tf.where(label < 0, len(classes), label)
            denoiser = denoiser.given(label, guidance, guidance_interval)
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
        input_signature=[
            first,
            chunk,
            unknown_pixels,
            chunk,
            chunk,
            tf.TensorSpec([chunk_size], tf.int32),
            t,
            seed,
            steps,
            repeats,
            tf.TensorSpec([]),
        ],
        autograph=False,
    )

    def draw(arrays, t, seed, steps, first, repeats, label, guidance):
        count = tf.shape(arrays[0])[0]
        checks = _checks(t, seed, steps, first, repeats, count)
        if classes:
            label = listed(label)
            checks += label_checks(classes, label, guidance, count)
            checks += given_checks(classes, label)
        with tf.control_dependencies(checks):
            steps = tf.where(steps == 0, num_steps, steps)
            labels = tf.gather(label, tf.minimum(tf.range(count), tf.size(label) - 1))
        return _in_chunks(
            lambda start, *part: shared(start, *part, t, seed, steps, repeats, guidance),
            (*arrays, labels),
            first=first,
            chunk_size=chunk_size,
        )

    no_label, own_guidance = tf.constant([ANY_CLASS]), tf.constant(guidance)

    def vary(images, t, seed, num_steps=0, first=0, label=no_label, guidance=own_guidance):
        x = to_unit_range(images)
        arrays = x, _all_unknown(x), *_nothing_known(x)
        return draw(arrays, t, seed, num_steps, first, tf.constant(1), label, guidance)

    def restore(
        values,
        variance,
        seed,
        num_steps=0,
        first=0,
        repeats=REPEATS,
        label=no_label,
        guidance=own_guidance,
    ):
        checks = [
            tf.debugging.assert_non_negative(variance, "variance must not be negative"),
            tf.debugging.assert_equal(tf.math.is_finite(values), True, "values must be finite"),
        ]
        with tf.control_dependencies(checks):
            arrays = tf.zeros_like(values), _all_unknown(values), values, variance
        at_1 = tf.constant(1.0)
        return draw(arrays, at_1, seed, num_steps, first, repeats, label, guidance)

    def inpaint(
        images,
        unknown,
        seed,
        num_steps=0,
        first=0,
        repeats=REPEATS,
        label=no_label,
        guidance=own_guidance,
    ):
        message = "unknown must have a mask for each of the images"
        check = tf.debugging.assert_equal(tf.shape(unknown)[0], tf.shape(images)[0], message)
        with tf.control_dependencies([check]):
            x = to_unit_range(images)
        arrays = x, unknown[..., None], *_nothing_known(x)
        at_1 = tf.constant(1.0)
        return draw(arrays, at_1, seed, num_steps, first, repeats, label, guidance)

    def batch(name, dtype):
        dimensions = shape[:2] if dtype == tf.bool else shape
        return tf.TensorSpec((None, *dimensions), dtype, name=name)

    images, unknown = batch("images", tf.uint8), batch("unknown", tf.bool)
    known = [batch(name, tf.float32) for name in ("values", "variance")]
    labels = [labels_spec(), tf.TensorSpec([], name="guidance")]
    guided = labels if classes else []
    signatures = {
        vary: [images, t, seed, steps, first, *guided],
        restore: [*known, seed, steps, first, repeats, *guided],
        inpaint: [images, unknown, seed, steps, first, repeats, *guided],
    }
    return {
        function.__name__: tf.function(function, input_signature=signature, autograph=False)
        for function, signature in signatures.items()
    }


def _all_unknown(x: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(x[..., :1], tf.bool)


def _nothing_known(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros_like(x), tf.fill(tf.shape(x), float("inf"))


def _checks(t, seed, num_steps, first, repeats, num_images) -> list:
    return [
        *draw_checks(seed, num_steps, first, num_images),
        tf.debugging.assert_equal((t > 0) & (t <= 1), True, "t must lie in (0, 1]"),
        tf.debugging.assert_positive(repeats, "repeats must be at least 1"),
    ]


def _in_chunks(draw, arrays: Sequence[tf.Tensor], *, first, chunk_size: int) -> tf.Tensor:
    """What `draw(start, *parts)` draws for the rows of arrays, which begin with image `first`.

    Chunks are aligned and padded, so that a row is the same whatever it is drawn with.
    """
    count, before = tf.shape(arrays[0])[0], first % chunk_size
    chunks = (before + count - 1) // chunk_size + 1
    padding = [[before, chunks * chunk_size - before - count]]

    def padded(array):
        others = [[0, 0]] * (len(array.shape) - 1)
        return tf.reshape(tf.pad(array, padding + others), [-1, chunk_size, *array.shape[1:]])

    parts = [padded(array) for array in arrays]
    starts = first - before + chunk_size * tf.range(chunks)
    shape = arrays[0].shape[1:]
    drawn = tf.map_fn(
        lambda given: draw(*given),
        (starts, *parts),
        fn_output_signature=tf.TensorSpec((chunk_size, *shape), tf.uint8),
        parallel_iterations=1,
    )
    return tf.reshape(drawn, [-1, *shape])[before : before + count]
