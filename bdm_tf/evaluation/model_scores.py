"""What the weights say of the evaluation split: loss and bits per dimension."""

from __future__ import annotations

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.data.labels import labels_among
from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.evaluation.evaluator import (
    EVAL_IMAGES,
    Batch,
    Context,
    Evaluator,
    Unavailable,
    check_split,
)
from bdm_tf.likelihood import TERMS, low_discrepancy, no_bound, variational_bound
from bdm_tf.noise import fold_in, normal
from bdm_tf.system.errors import check_counts, check_flags

_MOST = 10**6  # draws
_LOSS, _BOUND = 1, 2  # sets the random numbers of the two apart


class _OverImages(Evaluator):
    """Values of single images, averaged; image i's noise and times belong to (seed, i).

    Args:
        context: see `Context`.
        draws: times and noises for each image.
    """

    consumes = EVAL_IMAGES
    _purpose: int

    def __init__(self, context: Context, draws: int = 1):
        check_counts(type(self).__name__, 1, _MOST, draws=draws)
        if context.model is None:
            raise Unavailable(self.names[0], "it needs the weights: give --workdir")
        check_split(self.names[0], context, "eval", images=True)
        self._model, self._seed, self._draws = context.model, context.seed, draws
        self._described = context.reference.describe("eval")
        self._labels: np.ndarray | None = None
        if context.model.classes is not None:
            images = context.reference.images("eval")
            self._labels = labels_among(images, context.model.classes.names)
        self._run = context.on_replicas(self._values)
        self.start()

    def start(self) -> None:
        self._found: dict[int, dict[str, float]] = {}

    def _values(self, images, numbers, places, label=None) -> dict[str, tf.Tensor]:
        raise NotImplementedError

    def _seeds(self, numbers: tf.Tensor) -> tf.Tensor:
        seed = fold_in(tf.constant([0, self._seed]), self._purpose)
        return tf.map_fn(lambda i: fold_in(seed, i), numbers, fn_output_signature=tf.int32)

    def update(self, batch: Batch) -> None:
        drawn = []
        label = [] if self._labels is None else [self._labels[batch["index"]]]
        for k in range(self._draws):
            numbers = (batch["index"] * self._draws + k).astype(np.int32)
            places = low_discrepancy(numbers, self._seed)
            drawn.append(self._run(batch["image"], numbers, places, *label))
        means = {name: np.mean([values[name] for values in drawn], 0) for name in drawn[0]}
        for row, i in enumerate(batch["index"]):
            self._found[int(i)] = {name: float(value[row]) for name, value in means.items()}

    def merge(self, other) -> None:
        self._found.update(other._found)

    def _averages(self) -> tuple[dict[str, float], dict]:
        rows = [self._found[i] for i in sorted(self._found)]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        totals = [sum(row.values()) for row in rows]
        error = float(np.std(totals) / np.sqrt(len(rows)))
        shared = {"standard_error": error, "num_images": len(rows), "draws": self._draws}
        return means, {**shared, **self._described}


@gin.register
class EvalLoss(_OverImages):
    """The training objective on the evaluation split, without dropout: "loss"."""

    names, _purpose = ("loss",), _LOSS

    def _values(self, images, numbers, places, label=None):
        model, x = self._model, to_unit_range(images)
        noise = normal(self._seeds(numbers), 0, x.shape[1:])
        t = model.times_at(places)
        return {"loss": model.losses(model.denoiser(), x, t, noise, label=label)}

    def result(self) -> dict[str, dict]:
        means, shared = self._averages()
        return {self.names[0]: {"value": means["loss"], **shared}}


@gin.register
class BitsPerDimension(_OverImages):
    """The variational bound on the evaluation split and its three terms: "bits_per_dim".

    Args:
        context: see `Context`.
        num_steps, importance: see `variational_bound`.
        draws: times and noises for each image.
    """

    names, _purpose = ("bits_per_dim",), _BOUND

    def __init__(
        self,
        context: Context,
        num_steps: int | None = None,
        importance: bool = True,
        draws: int = 1,
    ):
        if num_steps is not None:
            check_counts("BitsPerDimension", 1, num_steps=num_steps)
        check_flags("BitsPerDimension", importance=importance)
        super().__init__(context, draws)
        reason = no_bound(self._model.denoiser())
        if reason:
            raise Unavailable(self.names[0], reason)
        self._settings = dict(num_steps=num_steps, importance=importance)

    def _values(self, images, numbers, places, label=None):
        denoiser = self._model.denoiser()
        return variational_bound(
            denoiser if label is None else denoiser.given(label),
            images,
            seeds=self._seeds(numbers),
            places=places,
            **self._settings,
        )

    def result(self) -> dict[str, dict]:
        means, shared = self._averages()
        terms = {name: means[name] for name in TERMS}
        shared["bound_num_steps"] = self._settings["num_steps"] or "continuous time"
        return {self.names[0]: {"value": sum(terms.values()), **terms, **shared}}
