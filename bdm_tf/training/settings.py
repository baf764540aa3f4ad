"""What `train` can be given: numbers in range, parts of the right kind, before anything is made."""

from __future__ import annotations

from typing import Any

from bdm_tf.data.images import check_source
from bdm_tf.errors import (
    UserError,
    check_between,
    check_counts,
    check_flags,
    check_seed,
)

_LARGEST_BATCH = 2**20
_AT_LEAST_ONE = "num_steps steps_per_call keep_checkpoints accumulation_steps"
_AT_LEAST_ZERO = (
    "warmup_steps log_every checkpoint_every keep_every eval_every eval_images sample_every "
    "sample_images"
)


def check_settings(given: dict[str, Any], replicas: int) -> None:
    """Looks at the parameters of `train`.

    Args:
        given: all of them, by name.
        replicas: that share a batch.

    Raises:
        UserError: one is out of range, of another type, or the batch cannot be shared.
    """
    check_counts("train", 1, **{name: given[name] for name in _AT_LEAST_ONE.split()})
    check_counts("train", 1, _LARGEST_BATCH, batch_size=given["batch_size"])
    check_counts("train", 0, **{name: given[name] for name in _AT_LEAST_ZERO.split()})
    if given["sample_num_steps"] is not None:
        check_counts("train", 1, sample_num_steps=given["sample_num_steps"])
    check_between("train.learning_rate", given["learning_rate"], 0)
    if given["clip_norm"] is not None:
        check_between("train.clip_norm", given["clip_norm"], 0, without_low=True)
    check_between("train.ema_decay", given["ema_decay"], 0, 1)
    check_seed("train.seed", given["seed"])
    for name in ("flip", "deterministic", "async_checkpoints"):
        check_flags("train", **{name: given[name]})
    if given["jit_compile"] is not None:
        check_flags("train", jit_compile=given["jit_compile"])
    check_source("train.data", given["data"])
    batch_size, parts = given["batch_size"], given["accumulation_steps"]
    if batch_size % (replicas * parts):
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by the {replicas} replica(s) times "
            f"train.accumulation_steps={parts}"
        )
