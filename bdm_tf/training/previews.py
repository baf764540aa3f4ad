"""The grids of samples that are drawn during training."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bdm_tf.classes import in_turn
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.image_grids import without_tensor_float_32
from bdm_tf.model import Model
from bdm_tf.projections import Projection, SpectralClip
from bdm_tf.replicas import on_replicas
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.system.errors import UserError, check_kind


def preview_settings(
    settings: SampleSettings,
    sampler: Sampler | None,
    num_steps: int | None,
    projection: Projection | None,
) -> SampleSettings:
    """How previews are drawn: as finished samples are, but for what is given.

    Raises:
        UserError: `projection` needs what is measured when training has ended.
    """
    if sampler is not None:
        check_kind("train.sample_sampler", sampler, Sampler)
    if projection is not None:
        check_kind("train.sample_projection", projection, Projection)
    if projection is not None and projection.needs_trust:
        raise UserError(
            f"train.sample_projection: {type(projection).__name__} needs what is measured at the "
            "end of training; give @SpectralClip()"
        )
    if settings.projection.needs_trust:
        projection = projection or SpectralClip()
    return SampleSettings(
        sampler or settings.sampler,
        num_steps or settings.num_steps,
        projection or settings.projection,
        guidance=settings.guidance,
        guidance_interval=settings.guidance_interval,
    )


def previewer(
    model: Model,
    settings: SampleSettings,
    strategy: tf.distribute.Strategy,
    count: int,
    seed: int,
    at_a_time: int,
) -> Callable[[], np.ndarray]:
    """A function that draws uint8 samples `[count, H, W, C]`, the same noise every time.

    They are multiplied without TensorFloat-32, as `launch/sample.py` does.

    Args:
        model: whose averaged weights draw.
        settings: how.
        strategy: whose replicas share the work.
        count: how many images.
        seed: an integer.
        at_a_time: how many a replica draws at a time, at most.
    """
    replicas = strategy.num_replicas_in_sync
    turns = max(1, math.ceil(count / (replicas * at_a_time)))
    chunk = math.ceil(count / (replicas * turns))
    firsts = np.arange(turns * replicas, dtype=np.int32) * chunk

    def on_replica(first):
        label = None
        if model.classes:
            places = (first[0] + tf.range(chunk)) % count
            label = in_turn(places, count, len(model.classes))
        x = settings.draw(
            model, seed=tf.constant([0, seed]), first=first[0], count=chunk, label=label
        )
        return to_uint8(x)

    draw = on_replicas(strategy, on_replica)

    def preview():
        with without_tensor_float_32():
            return np.concatenate([draw(part) for part in np.split(firsts, turns)])[:count]

    return preview
