"""`train`: build, resume, step, log, save, finish."""

from __future__ import annotations

import time
from collections.abc import Callable

import gin
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bdm_tf import config
from bdm_tf.data import pipeline
from bdm_tf.errors import UserError, check_counts
from bdm_tf.model import (
    Model,
    build_model,
    build_sample_settings,
    pin_basis,
    prepare_prior,
)
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.training.adam import FusedAdam
from bdm_tf.training.checkpoints import Checkpoints, checkpoint_step
from bdm_tf.training.signals import StopRequest
from bdm_tf.training.state import TrainState
from bdm_tf.training.strategy import default_jit_compile
from bdm_tf.training.trainer import Trainer
from bdm_tf.training.workdir import Workdir

_FIT_BATCH = 500  # images at a time, when a prior is fitted
_CALL_SECONDS = 2.0  # a call to the device lasts about this long, so that a stop request is heard


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that grows linearly over the first `steps` and stays."""

    def __init__(self, learning_rate: float, steps: int):
        self.learning_rate, self.steps = learning_rate, steps

    def __call__(self, step):
        done = (tf.cast(step, tf.float32) + 1.0) / max(self.steps, 1)
        return self.learning_rate * tf.minimum(done, 1.0)

    def get_config(self):
        return {"learning_rate": self.learning_rate, "steps": self.steps}


@gin.configurable
def train(
    workdir: str,
    strategy: tf.distribute.Strategy,
    finish: Callable[[Model, int], None],
    *,
    data_dir: str | None = None,
    on_corrupt_image: str = "stop",
    data=gin.REQUIRED,
    num_steps: int = gin.REQUIRED,
    batch_size: int = gin.REQUIRED,
    learning_rate: float = gin.REQUIRED,
    seed: int = 0,
    flip: bool = False,
    warmup_steps: int = 0,
    clip_norm: float | None = None,
    ema_decay: float = 0.9999,
    optimizer: Callable | None = None,
    steps_per_call: int = 100,
    jit_compile: bool | None = None,
    deterministic: bool = True,
    log_every: int = 100,
    checkpoint_every: int = 5000,
    keep_checkpoints: int = 3,
    keep_every: int = 0,
    eval_every: int = 5000,
    eval_images: int = 1000,
    sample_every: int = 5000,
    sample_images: int = 64,
    sample_sampler: Sampler | None = None,
    sample_num_steps: int = 100,
) -> int | None:
    """Trains a model in a workdir, or goes on with the run that is there.

    Args:
        workdir: the run's folder.
        strategy: where to train.
        finish: called with the model and its step once the last step is done.
        data_dir, on_corrupt_image: handed to `data.load`.
        data: a data source.
        num_steps: steps in the whole run.
        batch_size: images in a global batch; divisible by the number of replicas.
        learning_rate: of Adam, reached after `warmup_steps`.
        seed: of everything random.
        flip: mirror images at random.
        clip_norm: bound on the global gradient norm; None for none.
        ema_decay: of the averaged weights.
        optimizer: makes a Keras optimizer from `learning_rate`; None is `FusedAdam`.
        steps_per_call: at most so many steps before the host looks up.
        jit_compile: XLA for the step; None chooses by device.
        deterministic: TensorFlow's op determinism, which bit-identical resuming needs.
        log_every, checkpoint_every, eval_every, sample_every: cadences in steps; 0 is never.
        keep_checkpoints, keep_every: see `Checkpoints`.
        eval_images: at most so many images of the evaluation split are used.
        sample_images, sample_sampler, sample_num_steps: the grids drawn during training; the
            sampler None is that of `sample`. They clip (see `Denoiser`), whatever `sample` does.

    Returns:
        None, or the number of the signal that stopped it.

    Raises:
        UserError: what was given cannot be used, or the loss is no longer finite.
    """
    check_counts(
        "train", 1, num_steps=num_steps, batch_size=batch_size, steps_per_call=steps_per_call
    )
    check_counts("train", 1, keep_checkpoints=keep_checkpoints, sample_num_steps=sample_num_steps)
    check_counts("train", 0, log_every=log_every, checkpoint_every=checkpoint_every)
    check_counts("train", 0, eval_every=eval_every, eval_images=eval_images, keep_every=keep_every)
    check_counts("train", 0, sample_every=sample_every, sample_images=sample_images)
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise UserError(
            f"train.batch_size={batch_size} is not divisible by the {replicas} replicas"
        )
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    files = Workdir(workdir)
    images, evaluation = data.load(data_dir, on_corrupt_image=on_corrupt_image)
    config.bind("Model.image_shape", images.image_shape)
    pin_basis()
    # After the data: preparing them draws from Python's generator, as Keras 3's weights do.
    keras.utils.set_random_seed(seed)
    rate = WarmUp(learning_rate, warmup_steps)
    with strategy.scope():
        model = build_model()
        settings = build_sample_settings(model)  # also so that config.gin has its parameters
        preview_sampler = sample_sampler or settings.sampler
        preview_sampler.check(model.denoiser(), sample_num_steps, "train.sample_num_steps")
        make_optimizer = optimizer or gin.get_configurable(FusedAdam)
        state = TrainState(model.network, model.ema_network, make_optimizer(learning_rate=rate))
    files.claim(config.operative_text())
    prepare_prior(model, workdir, lambda: images.in_order(_FIT_BATCH))
    checkpoints = Checkpoints(state.checkpoint(), files.checkpoints, keep_checkpoints, keep_every)
    path = checkpoints.restore()
    start = checkpoint_step(path) if path else 0
    state.window.load()
    files.forget_after(start)
    print(
        f"{'resuming at' if path else 'training from'} step {start} of {num_steps}: "
        f"{images.num_images} images of {images.image_shape}, workdir {workdir}",
        flush=True,
    )
    trainer = Trainer(
        strategy=strategy,
        model=model,
        state=state,
        batch_size=batch_size,
        seed=seed,
        ema_decay=ema_decay,
        clip_norm=clip_norm,
        jit_compile=default_jit_compile(strategy) if jit_compile is None else jit_compile,
    )
    preview = _preview(model, preview_sampler, strategy, sample_images, seed)
    eval_array = None
    if evaluation is not None and eval_every:
        eval_array = pipeline.to_unit_range(evaluation.eval_images(eval_images)).numpy()
    dataset = strategy.distribute_datasets_from_function(
        lambda _: pipeline.training_dataset(
            images,
            batch_size=batch_size,
            seed=seed,
            first_step=start,
            flip=flip,
            replica_batch_size=batch_size // replicas,
        )
    )
    iterator = iter(dataset)
    cadences = [log_every, checkpoint_every, sample_every, eval_every if evaluation else 0]
    step, steps_per_second = start, 0.0
    window_began, window_steps = time.monotonic(), 0
    with StopRequest() as stop, tqdm(total=num_steps, initial=start, unit="step") as bar:
        while step < num_steps and stop.signal_number is None:
            count = min(steps_per_call, max(1, int(steps_per_second * _CALL_SECONDS)))
            count = min([count, num_steps - step] + [c - step % c for c in cadences if c])
            began = time.monotonic()
            try:
                records = trainer.run(iterator, count)
            except tf.errors.OpError:
                if images.failure:  # a damaged file, met while streaming
                    raise images.failure from None
                raise
            if step > start:  # the first call builds the graph
                steps_per_second = count / (time.monotonic() - began)
            else:
                steps_per_second, window_began, window_steps = 1e-9, time.monotonic(), -count
            _check_finite(records, step, checkpoints.latest())
            step += count
            window_steps += count
            state.window.add(records)
            if step - count > start:
                bar.update(count)
            else:  # what built the graph says nothing about the time left
                bar.reset()
                bar.initial = bar.last_print_n = bar.n = step
                bar.refresh()
            scalars = {}

            def due(cadence, step=step):
                return cadence and (step % cadence == 0 or step == num_steps)

            if due(log_every):
                elapsed = time.monotonic() - window_began
                scalars = state.window.averages()
                scalars["learning_rate"] = float(rate(step - 1))
                if window_steps > 0:
                    speed = window_steps * batch_size / max(elapsed, 1e-9)
                    scalars["images_per_second"] = speed
                bar.set_postfix_str(
                    f"loss {scalars['loss']:.4f}, {scalars.get('images_per_second', 0.0):.0f} img/s"
                )
                state.window.clear()
                window_began, window_steps = time.monotonic(), 0
            if eval_array is not None and due(eval_every):
                scalars["eval_loss"] = trainer.eval_loss(eval_array)
            if scalars:
                files.write_metrics(step, scalars)
            if due(checkpoint_every):
                _save(state, checkpoints, step)
            if sample_images and due(sample_every):
                files.write_samples(step, preview(tf.constant(sample_num_steps)).numpy())
            if scalars:  # what was not training does not count as training time
                window_began = time.monotonic()
    if stop.signal_number is not None and step < num_steps:
        if step > start:
            path = _save(state, checkpoints, step)
        print(f"stopped at step {step}, saved as {path}; the same command goes on", flush=True)
        return stop.signal_number
    latest = checkpoints.latest()
    if latest is None or checkpoint_step(latest) < step:
        _save(state, checkpoints, step)
    finish(model, step)
    return None


def _save(state: TrainState, checkpoints: Checkpoints, step: int) -> str:
    state.window.store()
    return checkpoints.save(step)


def _preview(model, sampler, strategy, count: int, seed: int):
    """A compiled function from a number of steps to uint8 samples, the same noise every time."""
    shape = (count, *model.image_shape)

    @tf.function
    def draw(num_steps):
        def on_replica():
            x = sampler(
                model.denoiser(clip=True),
                shape=shape,
                seed=tf.constant([0, seed]),
                num_steps=num_steps,
            )
            return pipeline.to_uint8(x)

        return strategy.experimental_local_results(strategy.run(on_replica))[0]

    return draw


def _check_finite(records: np.ndarray, step: int, last_good: str | None) -> None:
    bad = ~np.isfinite(records[:, :2]).all(axis=1)
    if bad.any():
        saved = last_good or "none was saved"
        raise UserError(
            f"the loss is not finite at step {step + int(bad.argmax()) + 1}; the last good "
            f"checkpoint ({saved}) is untouched. A lower train.learning_rate, train.clip_norm or "
            "train.warmup_steps may help."
        )
