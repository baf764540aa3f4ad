"""What all evaluators share: they see images a batch at a time and end with named figures."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bdm_tf.errors import UserError

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
    """

    num_images: int
    features: Any
    reference: Any
    model: Any = None
    on_replicas: Callable = lambda function: function
    seed: int = 0


class Evaluator(abc.ABC):
    """Measures one thing: `start`, `update` with every batch in any order, ask for `result`."""

    consumes = SAMPLES

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
    """Raised by an evaluator that cannot measure this subject; `message` says why."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message  # gin adds to `str(error)` through which functions it passed


def real_images(context: Context, split: str) -> dict[str, str]:
    """What a result says of the split that samples are compared with.

    Raises:
        Unavailable: the data set has no such split.
        UserError: there is no such word.
    """
    if split not in ("train", "eval"):
        raise UserError(f"split={split!r} of an evaluator must be 'train' or 'eval'")
    if not context.reference.has(split):
        raise Unavailable(f"there is no {split} split")
    return context.reference.describe(split)


def need(name: str, have: int, least: int) -> None:
    """Raises a `UserError` where there are fewer samples than a metric needs.

    Raises `Unavailable` where none were asked for.
    """
    if have == 0:
        raise Unavailable("no samples were asked for")
    if have < least:
        raise UserError(f"{name} needs at least {least} samples, --num_images={have}")
