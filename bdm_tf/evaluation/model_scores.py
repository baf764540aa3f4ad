"""What the weights say of the evaluation split: loss and bits per dimension."""

from __future__ import annotations

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.evaluation.evaluator import EVAL_IMAGES, Batch, Context, Evaluator, Unavailable
from bdm_tf.likelihood import TERMS, low_discrepancy, variational_bound
from bdm_tf.sampling.noise import fold_in, normal

_LOSS, _BOUND = 1, 2  # sets the random numbers of the two apart


class _OverImages(Evaluator):
    """Values of single images, averaged; image i's noise and time belong to (seed, i)."""

    consumes = EVAL_IMAGES
    _purpose: int

    def __init__(self, context: Context):
        if context.model is None:
            raise Unavailable("this needs the weights: give --workdir")
        if not context.reference.has_images("eval"):
            raise Unavailable("there is no evaluation split")
        self._model, self._seed = context.model, context.seed
        self._described = context.reference.describe("eval")
        self._run = context.on_replicas(self._values)
        self.start()

    def start(self) -> None:
        self._found: dict[int, dict[str, float]] = {}

    def _values(self, images, index, places) -> dict[str, tf.Tensor]:
        raise NotImplementedError

    def _seeds(self, index: tf.Tensor) -> tf.Tensor:
        seed = fold_in(tf.constant([0, self._seed]), self._purpose)
        return tf.map_fn(lambda i: fold_in(seed, i), index, fn_output_signature=tf.int32)

    def update(self, batch: Batch) -> None:
        index = batch["index"].astype(np.int32)
        values = self._run(batch["image"], index, low_discrepancy(index, self._seed))
        for row, i in enumerate(index):
            self._found[int(i)] = {name: float(value[row]) for name, value in values.items()}

    def merge(self, other) -> None:
        self._found.update(other._found)

    def _averages(self) -> tuple[dict[str, float], dict]:
        rows = [self._found[i] for i in sorted(self._found)]
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        totals = [sum(row.values()) for row in rows]
        error = float(np.std(totals) / np.sqrt(len(rows)))
        return means, {"standard_error": error, "num_images": len(rows), **self._described}


@gin.register
class EvalLoss(_OverImages):
    """The training objective on the evaluation split, without dropout: "loss"."""

    _purpose = _LOSS

    def _values(self, images, index, places):
        model, x = self._model, to_unit_range(images)
        eps = normal(self._seeds(index), 0, x.shape[1:])
        loss = model.objective(model.ema_network, model.process, x, places, eps)
        return {"loss": loss}

    def result(self) -> dict[str, dict]:
        means, shared = self._averages()
        return {"loss": {"value": means["loss"], **shared}}


@gin.register
class BitsPerDimension(_OverImages):
    """The variational bound on the evaluation split and its three terms: "bits_per_dim".

    Args:
        context: see `Context`.
        num_steps, importance: see `variational_bound`.
    """

    _purpose = _BOUND

    def __init__(self, context: Context, num_steps: int | None = None, importance: bool = True):
        super().__init__(context)
        self._settings = dict(num_steps=num_steps, importance=importance)

    def _values(self, images, index, places):
        return variational_bound(
            self._model.denoiser(),
            images,
            seeds=self._seeds(index),
            places=places,
            **self._settings,
        )

    def result(self) -> dict[str, dict]:
        means, shared = self._averages()
        terms = {name: means[name] for name in TERMS}
        shared["bound_num_steps"] = self._settings["num_steps"] or "continuous time"
        return {"bits_per_dim": {"value": sum(terms.values()), **terms, **shared}}
