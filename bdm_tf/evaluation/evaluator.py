"""What all evaluators share: they see images a batch at a time and end with named figures."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bdm_tf.evaluation.conditions import ANY, Conditions
from bdm_tf.system.errors import UserError

SAMPLES, EVAL_IMAGES, NOTHING = "samples", "evaluation images", "nothing"

# Of samples: "index" int64 [n], "features" float32 [n, d] and, if the network has them, "logits"
# float32 [n, k]. Of the evaluation split: "index" int64 [n] and "image" uint8 [n, H, W, C].
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Context:
    """What an evaluator may need to know.

    Attributes:
        num_images: how many samples will be drawn.
        features: the feature network.
        reference: the real images' `Reference`.
        model: the `Model`, or None where only samples are to be had.
        on_replicas: spreads a function of arrays over the replicas; see `on_replicas`.
        seed: an integer.
        conditions: what samples are asked to be.
    """

    num_images: int
    features: Any
    reference: Any
    model: Any = None
    on_replicas: Callable = lambda function: function
    seed: int = 0
    conditions: Conditions = ANY


class Evaluator(abc.ABC):
    """Measures one thing: `start`, `update` with every batch in any order, ask for `result`."""

    consumes = SAMPLES
    names: tuple[str, ...]  # of its figures

    @abc.abstractmethod
    def start(self) -> None:
        """Forgets what was seen: the next checkpoint's turn."""

    @abc.abstractmethod
    def update(self, batch: Batch) -> None:
        """Takes in a batch."""

    @abc.abstractmethod
    def merge(self, other: Evaluator) -> None:
        """Takes in all that another evaluator of the same kind has seen."""

    @abc.abstractmethod
    def result(self) -> dict[str, dict]:
        """The figures: name to `{"value": ..., and what belongs to it}`."""


class Unavailable(Exception):
    """Raised by an evaluator that cannot measure this subject.

    Args:
        figure: what cannot be had.
        message: why.
    """

    def __init__(self, figure: str, message: str):
        super().__init__(message)
        self.figure = figure
        self.message = message  # gin adds to `str(error)` through which functions it passed


def check_split(figure: str, context: Context, split: str, images: bool = False) -> None:
    """Checks that a split is there to be compared with.

    Args:
        figure: what it is wanted for.
        context: see `Context`.
        split: "train" or "eval".
        images: whether the images themselves are needed, not statistics alone.

    Raises:
        Unavailable: it is not.
        UserError: there is no such word.
    """
    if not isinstance(split, str) or split not in ("train", "eval"):
        raise UserError(f"split={split!r} of an evaluator must be 'train' or 'eval'")
    reference = context.reference
    if not (reference.has_images(split) if images else reference.has(split)):
        raise Unavailable(figure, f"the data set has no {split} split")


def check_samples(figure: str, context: Context, least: int, setting: str = "") -> None:
    """Checks that enough samples will be drawn for a figure.

    Raises:
        Unavailable: fewer than `least`; `setting` names the gin parameter that asks for so many.
    """
    have = context.num_images
    if have == 0:
        raise Unavailable(figure, "no samples were asked for")
    if have < least:
        way_out = f" ({setting})" if setting else ""
        reason = f"it needs at least {least} samples{way_out}, there are {have}"
        raise Unavailable(figure, reason)
