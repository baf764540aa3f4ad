"""gin's `train.*`: what is trained on, for how long, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gin

from bdm_tf import config
from bdm_tf.data.sources import check_source
from bdm_tf.projections import Projection
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.system.errors import (
    UserError,
    check_between,
    check_counts,
    check_flags,
    check_seed,
    check_text,
)

_LARGEST_BATCH = 2**20
_AT_LEAST_ONE = "num_steps steps_per_call keep_checkpoints accumulation_steps"
_AT_LEAST_ZERO = (
    "warmup_steps log_every checkpoint_every keep_every eval_every eval_images sample_every "
    "sample_images"
)


@gin.register("train")
@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained. Each attribute is a parameter of gin's `train`.

    Attributes:
        data: a data source.
        num_steps: steps in the whole run.
        batch_size: images in a global batch; divisible by the number of replicas.
        learning_rate: of any optimizer, reached after `warmup_steps`.
        warmup_steps: in which the rate rises from 0.
        seed: of everything random.
        flip: mirror images at random.
        clip_norm: bound on the global gradient norm; None for none.
        ema_decay: of the averaged weights; without effect where the optimizer averages by itself.
        optimizer: see `make_optimizer`.
        label_dropout: learn from the images' labels, and hide this share of them from the network,
            so that it learns to do without; None for no labels.
        init_from: a workdir or a checkpoint whose averaged weights a new run begins with.
        steps_per_call: at most so many steps before the host looks up.
        accumulation_steps: parts in which a replica takes its share of the batch; see `Trainer`.
        jit_compile: XLA for the step; None chooses by device.
        deterministic: TensorFlow's op determinism, which bit-identical resuming needs.
        log_every, checkpoint_every, eval_every, sample_every: cadences in steps; 0 is never.
        keep_checkpoints, keep_every: see `Checkpoints`.
        async_checkpoints: whether training goes on while checkpoints are written.
        eval_images: at most so many images of the evaluation split are used, evenly spaced.
        sample_images: how many images the grids drawn during training have; a replica draws as many
            at a time as it trains with.
        sample_sampler, sample_num_steps, sample_projection: how they are drawn; None is as `sample`
            does.

    Raises:
        UserError: one is out of range or of another type.
    """

    data: Any = gin.REQUIRED
    num_steps: int = gin.REQUIRED
    batch_size: int = gin.REQUIRED
    learning_rate: float = gin.REQUIRED
    warmup_steps: int = 0
    seed: int = 0
    flip: bool = False
    clip_norm: float | None = None
    ema_decay: float = 0.9999
    optimizer: Callable | None = None
    label_dropout: float | None = None
    init_from: str | None = None

    steps_per_call: int = 100
    accumulation_steps: int = 1
    jit_compile: bool | None = None
    deterministic: bool = True

    log_every: int = 100
    checkpoint_every: int = 5000
    keep_checkpoints: int = 3
    keep_every: int = 0
    async_checkpoints: bool = True

    eval_every: int = 5000
    eval_images: int = 1000
    sample_every: int = 5000
    sample_images: int = 64
    sample_sampler: Sampler | None = None
    sample_num_steps: int | None = None
    sample_projection: Projection | None = None

    def __post_init__(self):
        given = vars(self)
        check_counts("train", 1, **{name: given[name] for name in _AT_LEAST_ONE.split()})
        check_counts("train", 1, _LARGEST_BATCH, batch_size=self.batch_size)
        check_counts("train", 0, **{name: given[name] for name in _AT_LEAST_ZERO.split()})
        if self.sample_num_steps is not None:
            check_counts("train", 1, sample_num_steps=self.sample_num_steps)
        check_between("train.learning_rate", self.learning_rate, 0)
        if self.clip_norm is not None:
            check_between("train.clip_norm", self.clip_norm, 0, without_low=True)
        check_between("train.ema_decay", self.ema_decay, 0, 1)
        if self.label_dropout is not None:
            check_between("train.label_dropout", self.label_dropout, 0, 1, without_high=True)
        check_seed("train.seed", self.seed)
        if self.init_from is not None:
            check_text("train", init_from=self.init_from)
        for name in ("flip", "deterministic", "async_checkpoints"):
            check_flags("train", **{name: given[name]})
        if self.jit_compile is not None:
            check_flags("train", jit_compile=self.jit_compile)
        check_source("train.data", self.data)

    def check_shared(self, replicas: int) -> None:
        """Raises a `UserError` if so many replicas cannot share the batch."""
        if self.batch_size % (replicas * self.accumulation_steps):
            raise UserError(
                f"train.batch_size={self.batch_size} is not divisible by the {replicas} replica(s) "
                f"times train.accumulation_steps={self.accumulation_steps}"
            )


def training_settings() -> TrainingSettings:
    """Those of gin's configuration.

    Raises:
        UserError: one lacks, or is out of range.
    """
    return config.call(gin.get_configurable("train"))
