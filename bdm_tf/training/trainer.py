"""The training step on all replicas, many steps a call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bdm_tf.noise import fold_in, normal_rows, uniform
from bdm_tf.replicas import on_replicas
from bdm_tf.system.keras_versions import apply_reduced, own_averages
from bdm_tf.training.state import STEP_RECORD, TIME_BINS, TrainState

# What a random number is for; with the seed and the step it makes the seed of the draw.
_TIME, _NOISE, _DROPOUT, _LABEL = 0, 1, 2, 3


class Trainer:
    """Binds a model, its state and a strategy to a training step (Algorithm 2).

    Noise and times belong to the example (seed, step, place in the global batch), so the step does
    not depend on the number of replicas; dropout masks do.

    Args:
        strategy: where the step runs.
        model: the `Model`.
        state: its `TrainState`.
        batch_size: examples in the global batch.
        seed: an integer.
        ema_decay: of the weights' moving average, warmed up as min(decay, (1 + n) / (10 + n));
            without effect where the optimizer averages by itself.
        clip_norm: bound on the global norm of the reduced gradient; None for none.
        jit_compile: whether XLA compiles the step.
        accumulation_steps: parts, one after the other, into which a replica cuts its share of the
            batch; the gradient is their sum, so the step is the same for less memory.
    """

    def __init__(
        self,
        *,
        strategy: tf.distribute.Strategy,
        model,
        state: TrainState,
        batch_size: int,
        seed: int,
        ema_decay: float,
        clip_norm: float | None,
        jit_compile: bool,
        accumulation_steps: int = 1,
    ):
        self._strategy, self._model, self._state = strategy, model, state
        self.batch_size, self._seed = batch_size, seed
        self._ema_decay, self._clip_norm = ema_decay, clip_norm
        self._parts = accumulation_steps
        # Grappler takes seconds of the first step and makes the others no faster.
        self._rewriting = contextlib.nullcontext if jit_compile else _without_grappler
        # AutoGraph's reading of the step takes seconds: a loop is a tf.while_loop.
        self._step = tf.function(
            self.replica_step, jit_compile=jit_compile or None, autograph=False
        )
        self._eval = on_replicas(strategy, self._eval_losses)

    @tf.function
    def _many_steps(self, iterator, num_steps):
        records = tf.TensorArray(tf.float32, size=num_steps, element_shape=[STEP_RECORD])
        for i in tf.range(num_steps):
            result = self._strategy.run(self._step, args=(next(iterator), self._state.step))
            records = records.write(i, self._strategy.experimental_local_results(result)[0])
            self._state.step.assign_add(1)
        return records.stack()

    def run(self, iterator: Iterator, num_steps: int) -> np.ndarray:
        """Takes steps and returns float32 `[num_steps, STEP_RECORD]`, a row a step."""
        with self._rewriting():
            return self._many_steps(iterator, tf.constant(num_steps)).numpy()

    def eval_loss(self, images: np.ndarray, labels: np.ndarray | None = None) -> float:
        """Mean loss of the averaged weights on images, with the same times and noise every time.

        Args:
            images: float32 `[N, H, W, C]` in [-1, 1]; what does not fill a batch is left out.
            labels: their classes, int32 `[N]`, where labels are learnt.
        """
        replicas = self._strategy.num_replicas_in_sync
        size = min(self.batch_size, len(images)) // replicas * replicas
        places = (np.arange(size, dtype=np.float32) + 0.5) / size
        losses = []
        for start in range(0, len(images) - size + 1, size):
            x = images[start : start + size]
            noise = normal_rows(self._seed_for(start, _NOISE), 0, x.shape).numpy()
            given = () if labels is None else (labels[start : start + size],)
            losses.append(np.mean(self._eval(x, places, noise, *given)))
        return float(np.mean(losses))

    def replica_step(self, batch, step):
        """One replica's share of a training step; called in replica context.

        Args:
            batch: "image" float32 `[b, H, W, C]` and "row", its first row in the global batch; of
                images with labels also "label", int32 `[b]`.
            step: int64, the number of the step.

        Returns:
            float32 `[STEP_RECORD]`, of the global batch.
        """
        x, row = batch["image"], batch["row"]
        count = x.shape[0]
        places = uniform(self._seed_for(step, _TIME), [self.batch_size])
        t = self._model.times_at(tf.slice(places, [row], [count]))
        noise = normal_rows(self._seed_for(step, _NOISE), row, x.shape)
        label = self._some_hidden(batch["label"], row, step) if "label" in batch else None
        seed = self._seed_for(step, _DROPOUT)
        losses, gradients = self._gradients(x, t, noise, label, seed, row)
        loss = tf.reduce_sum(losses) / self.batch_size
        replica = tf.distribute.get_replica_context()
        bins = tf.one_hot(tf.minimum(tf.cast(t * TIME_BINS, tf.int32), TIME_BINS - 1), TIME_BINS)
        by_bin = tf.concat(
            [loss[None], tf.linalg.matvec(bins, losses, transpose_a=True), tf.reduce_sum(bins, 0)],
            axis=0,
        )
        if replica.num_replicas_in_sync > 1:
            *gradients, by_bin = replica.all_reduce(
                tf.distribute.ReduceOp.SUM, [*gradients, by_bin]
            )
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm is not None:
            scale = self._clip_norm / tf.maximum(norm, self._clip_norm)
            gradients = [gradient * scale for gradient in gradients]
        done = tf.cast(step, tf.float32)
        decay = tf.minimum(self._ema_decay, (1.0 + done) / (10.0 + done))
        apply_reduced(self._state.optimizer, gradients, self._model.network.trainable_variables)
        replica.merge_call(self._move_average, args=(1.0 - decay,))
        return tf.concat([by_bin[:1], norm[None], by_bin[1:]], axis=0)

    def _some_hidden(self, label, row, step):
        """Labels, of which a share is replaced by the number of none."""
        classes = self._model.classes
        places = uniform(self._seed_for(step, _LABEL), [self.batch_size])
        is_hidden = tf.slice(places, [row], [label.shape[0]]) < classes.dropout
        return tf.where(is_hidden, len(classes), label)

    def _gradients(self, x, t, noise, label, dropout_seed, row):
        """Losses `[count]` of examples, and the gradient of their sum over the batch size."""

        def part(x, t, noise, label, row):
            seed = dropout_seed + tf.stack([0, row])
            with tf.GradientTape() as tape:
                losses = self._model.losses(self._model.learner(), x, t, noise, seed, label)
                loss = tf.reduce_sum(losses) / self.batch_size
            return losses, tape.gradient(loss, self._state.weights)

        if self._parts == 1:
            return part(x, t, noise, label, row)
        size = x.shape[0] // self._parts
        losses = tf.TensorArray(tf.float32, size=self._parts, element_shape=[size])
        total = [tf.zeros_like(weight) for weight in self._state.weights]

        def add(i, losses, total):
            rows = tf.range(size) + i * size
            given = [None if a is None else tf.gather(a, rows) for a in (x, t, noise, label)]
            part_losses, gradients = part(*given, row + i * size)
            total = [a + tf.cast(b, a.dtype) for a, b in zip(total, gradients)]
            return i + 1, losses.write(i, part_losses), total

        # One after the other: parts under way together would need the memory of both.
        _, losses, total = tf.while_loop(
            lambda i, *_: i < self._parts, add, [0, losses, total], parallel_iterations=1
        )
        return tf.reshape(losses.stack(), [x.shape[0]]), total

    def _move_average(self, strategy, rate):
        """Moves the averaged weights; runs once for all replicas."""
        state = self._state
        averages = own_averages(state.optimizer, state.weights)

        def move(ema, weight, rate):
            # ema -= rate (ema - weight), in one operation after the difference
            tf.raw_ops.ResourceApplyGradientDescent(var=ema.handle, alpha=rate, delta=ema - weight)

        def take(ema, average):
            ema.assign(average)

        for i, ema in enumerate(state.ema_weights):
            if averages is None:
                strategy.extended.update(ema, move, args=(state.weights[i], rate), group=False)
            else:
                strategy.extended.update(ema, take, args=(averages[i],), group=False)

    def _eval_losses(self, x, places, noise, label=None):
        t = self._model.times_at(places)
        return self._model.losses(self._model.denoiser(), x, t, noise, label=label)

    def _seed_for(self, step, purpose):
        seed = tf.stack([tf.constant(self._seed, tf.int32), tf.cast(step, tf.int32)])
        return fold_in(seed, purpose)


@contextlib.contextmanager
def _without_grappler() -> Iterator[None]:
    """Functions that are called within are run as they were traced."""
    name = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})
