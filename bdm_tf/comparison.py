"""What two runs' parameters differ in, and which of the differences matter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from absl import logging

from bdm_tf.config import bound_parameters, called_parameters, made_for, owner_of, parameters
from bdm_tf.system.errors import UserError

# A run may go on with other values of these, and of all that samples are drawn with: they change
# when things happen, with how much memory or on what device, not what is learnt.
_CADENCES = frozenset(
    f"train.{name}"
    for name in (
        "num_steps steps_per_call checkpoint_every keep_checkpoints keep_every log_every "
        "eval_every eval_images accumulation_steps async_checkpoints jit_compile"
    ).split()
) | {"UNet.remat", "DCT.method", "export_saved_model.chunk_size", "ImageFolder.max_megapixels"}
# These change what is learnt, but neither the model nor what a checkpoint holds.
_CHANGEABLE = frozenset(
    f"train.{name}"
    for name in "learning_rate warmup_steps batch_size clip_norm ema_decay flip".split()
) | {"UNet.dropout"}
_SAMPLING = ("sample.", "train.sample_")
# What is noted once it was measured; runs of version 0.1.0 get it when they go on.
_MEASURED = frozenset({"Model.spectrum_sha256"})
_REFERENCE = re.compile(r"@([\w./]+)")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_AVERAGING = {"tfa.optimizers.MovingAverage", "tfa.optimizers.SWA"}


class Difference(NamedTuple):
    """A parameter that two runs differ in.

    Attributes:
        name: the parameter.
        there, here: its values.
        changeable: whether a run can go on with the other value, its checkpoints being what they
            are.
    """

    name: str
    there: str
    here: str
    changeable: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.there} there, {self.here} here"


def differences(old: str, new: str) -> list[Difference]:
    """What differs in what two operative texts learn.

    A parameter that is not there is the same as one that is None, and one that only one text has,
    of a class that nothing in it makes, is of no account. So is what samples are drawn with.
    """
    a, b = parameters(old), parameters(new)
    drawing = sampling_parameters(a).keys() | sampling_parameters(b).keys()
    optimizers = made_for(a.get("train.optimizer", ""), a)
    return [
        Difference(
            name,
            there := a.get(name, "(absent)"),
            here := b.get(name, "(absent)"),
            name in _CHANGEABLE
            or owner_of(name) in optimizers
            and all(_NUMBER.fullmatch(value) for value in (there, here)),
        )
        for name in sorted(a.keys() | b.keys())
        if a.get(name, "None") != b.get(name, "None")
        and not (name in _CADENCES or name in drawing)
        and not (name in _MEASURED and "None" in (a.get(name, "None"), b.get(name, "None")))
        and not (name not in a and _is_idle(name, b) or name not in b and _is_idle(name, a))
    ]


def sampling_parameters(values: dict[str, str]) -> dict[str, str]:
    """Those of the parameters that say how samples are drawn, and of nothing else."""
    made = {True: set[str](), False: set[str]()}
    for name, value in values.items():
        if name.startswith(("Model.", "train.", "sample.")):
            made[name.startswith(_SAMPLING)] |= made_for(value, values)
    owners = made[True] - made[False]
    return {k: v for k, v in values.items() if k.startswith(_SAMPLING) or owner_of(k) in owners}


def without_effect(given: Sequence[str], values: dict[str, str]) -> list[str]:
    """Those of the bindings that are of a class of which nothing makes one.

    Args:
        given: such as `"LogBlur.num_steps = 3"`.
        values: `config.parameters` of all that is bound.
    """
    used = _used(values)
    if values.get("train.optimizer", "None") == "None":
        used.add("FusedAdam")
    names = {name.rpartition(".")[2] for name in used}  # however much of a name is given
    owners = [owner_of(binding.partition("=")[0].strip()) for binding in given]
    return [
        binding
        for binding, owner in zip(given, owners)
        if _is_part(owner) and owner.rpartition(".")[2] not in names
    ]


def warn_of_no_effect(given: Sequence[str]) -> None:
    """Warns of those of the given bindings that are `without_effect` in gin's configuration."""
    for binding in without_effect(given, bound_parameters()):
        logging.warning('--gin_param="%s" has no effect: nothing here is made of that', binding)


def ema_decay(values: dict[str, str]) -> float | None:
    """The decay of a run's averaged weights; None where its optimizer averages by itself.

    Args:
        values: `config.parameters` of the run.
    """
    used = made_for(values.get("train.optimizer", ""), values)
    by_itself = any(name in _AVERAGING or values.get(f"{name}.use_ema") == "True" for name in used)
    decay = values.get("train.ema_decay")
    return None if by_itself or decay is None else float(decay)


def _is_idle(name: str, values: dict[str, str]) -> bool:
    """Whether a parameter is one of a class that nothing refers to, by whatever detours."""
    owner = owner_of(name)
    return _is_part(owner) and owner not in _used(values)


def _used(values: dict[str, str]) -> set[str]:
    """What parameters refer to that are not themselves those of something unused."""
    found: set[str] = set()
    new = {name for name in map(owner_of, values) if not _is_part(name)}
    while new:
        found |= new
        new = {
            reference
            for name, value in values.items()
            if owner_of(name) in new
            for reference in _REFERENCE.findall(value)
        } - found
    return found


def _is_part(owner: str) -> bool:
    """Whether it is a class whose objects are given to something else by a gin value."""
    return owner != "Model" and owner.rpartition(".")[2][:1].isupper()


def check_unchanged(trained_with: dict[str, str]) -> None:
    """Raises a `UserError` if the model that was just built is not the one that was trained.

    Args:
        trained_with: the parameters of the run's config.gin.
    """
    changed = [
        f"{name}: {trained_with[name]} in training, {value} here"
        for name, value in called_parameters().items()
        if trained_with.get(name, value) != value
    ]
    if changed:
        lines = "\n  ".join(changed)
        raise UserError(
            "a model stays what it was trained as; only how it is sampled can be chosen now (see "
            f"gin/sampling):\n  {lines}"
        )


def check_same_data(before: dict[str, str]) -> None:
    """Raises a `UserError` if gin's configuration names other training images than `before`."""
    after = bound_parameters()
    source = before.get("train.data", "")
    owners = {"train.data", *made_for(source, before)}
    changed = [
        f"{name}: {value} in training, {after[name]} here"
        for name, value in before.items()
        if (name == "train.data" or owner_of(name) in owners) and after.get(name, value) != value
    ]
    if changed:
        lines = "\n  ".join(changed)
        raise UserError(f"the training images are what they were, and noted so:\n  {lines}")
