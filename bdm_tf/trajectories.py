"""What a SavedModel shows of the way to its images, as a TensorFlow function."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bdm_tf.classes import ANY_CLASS, label_checks, labels_spec, listed
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.model import Model
from bdm_tf.noise import seeds_of
from bdm_tf.priors import StandardNormal
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.sampling.arguments import draw_checks
from bdm_tf.sampling.recorder import Recorder

OWN = -1  # in place of an image's number: each image's own


def trajectory_function(model: Model, settings: SampleSettings, chunk_size: int) -> Callable:
    """The function `trajectory`, which draws at most `chunk_size` images, and frames of their way.

    It takes what `sample` does, and
        num_frames: F, evenly over the steps, at least 1: the images alone.
        start_of, noise_of: the number of the image whose start, or whose noise of the steps, all
            share; -1 is each its own.
        towards, weight: where starts are white noise, another seed, int32 `[2]`, and how far the
            start of each image lies on the way to that one's, float32 `[1]` or `[num_images]`.

    It returns `t` float32 `[F]`, `z_t` and `x_hat`, uint8 `[F, num_images, H, W, C]`; see
    `Trajectory`. The last of both are the images.
    """
    process, prior, classes = model.process, model.prior, model.classes
    shape = model.image_shape

    def each(values):
        """A chunk's values, from one for all or one an image."""
        return tf.gather(values, tf.minimum(tf.range(chunk_size), tf.size(values) - 1))

    # Tensors, as Python's defaults would not be saved.
    zero, one, own = tf.constant(0), tf.constant(1), tf.constant(OWN)
    nowhere, no_weight = tf.constant([0, 0]), tf.constant([0.0])
    any_class = tf.constant([ANY_CLASS]) if classes else None
    own_guidance = tf.constant(settings.guidance) if classes else None

    def trajectory(
        seed,
        num_images,
        num_steps=zero,
        first=zero,
        num_frames=one,
        start_of=own,
        noise_of=own,
        towards=nowhere,
        weight=no_weight,
        label=any_class,
        guidance=own_guidance,
    ):
        weights = tf.size(weight)
        label = listed(label) if classes else None
        steps = tf.where(num_steps == 0, settings.num_steps, num_steps)
        checks = [
            *draw_checks(seed, num_steps, first, num_images),
            *(label_checks(classes, label, guidance, num_images) if classes else ()),
            tf.debugging.assert_less_equal(
                num_images, chunk_size, f"num_images must be at most {chunk_size}"
            ),
            tf.debugging.assert_positive(num_frames, "num_frames must be at least 1"),
            tf.debugging.assert_less_equal(
                num_frames, steps + 1, "num_frames must be at most one more than the steps"
            ),
            tf.debugging.assert_equal(
                (weight >= 0) & (weight <= 1), True, "weight must lie in [0, 1]"
            ),
            *(
                tf.debugging.assert_greater_equal(
                    n, OWN, f"{name} must be -1 or the number of an image"
                )
                for name, n in (("start_of", start_of), ("noise_of", noise_of))
            ),
            tf.debugging.assert_equal(
                (weights == 1) | (weights == num_images),
                True,
                "weight must have 1 or num_images entries",
            ),
        ]
        if not isinstance(prior, StandardNormal):
            where = type(prior).__name__
            message = f"weight must be 0: samples begin in {where}, not in white noise"
            checks.append(tf.debugging.assert_equal(weight, 0.0, message))
        with tf.control_dependencies(checks):
            steps = tf.identity(steps)
            num_frames = tf.identity(num_frames)
        start_of, noise_of = (
            tf.where(n < 0, first + tf.range(chunk_size), n) for n in (start_of, noise_of)
        )
        seeds = seeds_of(seed, start_of)
        if isinstance(prior, StandardNormal):
            others = seeds_of(towards, start_of)
            z = prior.draw_between(process, seeds, others, each(weight), shape)
        else:
            z = prior.draw(process, seeds, shape)
        given = {"label": each(label), "guidance": guidance} if classes else {}
        seen = Recorder(settings.sampler, steps, num_frames).trajectory(
            settings.denoiser(model, seed, first, chunk_size, **given),
            shape=(chunk_size, *shape),
            seed=seed,
            first=first,
            start=(z, prior.time(process)),
            noise_of=noise_of,
        )
        frames = {name: to_uint8(getattr(seen, name)[:, :num_images]) for name in ("z_t", "x_hat")}
        return {"t": seen.t, **frames}

    def spec(name, dtype, *dimensions):
        return tf.TensorSpec(dimensions, dtype, name=name)

    numbers_of = ("num_images", "num_steps", "first", "num_frames", "start_of", "noise_of")
    signature = [
        spec("seed", tf.int32, 2),
        *(spec(name, tf.int32) for name in numbers_of),
        spec("towards", tf.int32, 2),
        spec("weight", tf.float32, None),
    ]
    if classes:
        signature += [labels_spec(), spec("guidance", tf.float32)]
    return tf.function(trajectory, input_signature=signature, autograph=False)
