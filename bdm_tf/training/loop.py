"""`train`: build, resume, step, log, save, finish."""

from __future__ import annotations

from collections.abc import Callable

import gin
import keras
import numpy as np
import tensorflow as tf

from bdm_tf import config
from bdm_tf.cluster import Cluster
from bdm_tf.data import pipeline
from bdm_tf.data.images import Images
from bdm_tf.errors import UserError
from bdm_tf.fitted import (
    find_spectrum,
    keep_spectrum,
    load_spectrum,
    needs_spectrum,
    prepare_prior,
    prepare_trust,
)
from bdm_tf.history import TrainingImages, read_history
from bdm_tf.model import Model, build_model, build_sample_settings
from bdm_tf.projections import Projection
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.training.checkpoints import (
    Checkpoints,
    checkpoint_step,
    find_checkpoint,
    saved_checkpoints,
    weights_to_start_from,
)
from bdm_tf.training.optimizers import Recipe, WarmUp, make_optimizer
from bdm_tf.training.previews import preview_settings, previewer
from bdm_tf.training.run import Cadences, Run
from bdm_tf.training.settings import check_settings
from bdm_tf.training.state import TrainState
from bdm_tf.training.strategy import default_jit_compile, describe
from bdm_tf.training.trainer import Trainer
from bdm_tf.training.workdir import Workdir, pin_basis

_FIT_BATCH = 500  # images at a time, when a prior is fitted or a spectrum measured


@gin.configurable
def train(
    workdir: str,
    strategy: tf.distribute.Strategy,
    finish: Callable[[Model, int], None],
    *,
    data_dir: str | None = None,
    on_corrupt_image: str = "stop",
    allow_changes: bool = False,
    data=gin.REQUIRED,
    num_steps: int = gin.REQUIRED,
    batch_size: int = gin.REQUIRED,
    learning_rate: float = gin.REQUIRED,
    seed: int = 0,
    flip: bool = False,
    warmup_steps: int = 0,
    clip_norm: float | None = None,
    ema_decay: float = 0.9999,
    optimizer: Recipe | Callable | None = None,
    steps_per_call: int = 100,
    accumulation_steps: int = 1,
    jit_compile: bool | None = None,
    deterministic: bool = True,
    log_every: int = 100,
    checkpoint_every: int = 5000,
    keep_checkpoints: int = 3,
    keep_every: int = 0,
    async_checkpoints: bool = True,
    init_from: str | None = None,
    eval_every: int = 5000,
    eval_images: int = 1000,
    sample_every: int = 5000,
    sample_images: int = 64,
    sample_sampler: Sampler | None = None,
    sample_num_steps: int | None = None,
    sample_projection: Projection | None = None,
) -> int | None:
    """Trains a model in a workdir, or goes on with the run that is there.

    Args:
        workdir: the run's folder; with several workers, one that all of them see.
        strategy: where to train.
        finish: called by the chief with the model and its step once the last step is done.
        data_dir, on_corrupt_image: handed to `data.load`.
        allow_changes: go on with other values of what can be changed; see `Workdir.claim`.
        data: a data source.
        num_steps: steps in the whole run.
        batch_size: images in a global batch; divisible by the number of replicas.
        learning_rate: of any optimizer, reached after `warmup_steps`.
        seed: of everything random.
        flip: mirror images at random.
        clip_norm: bound on the global gradient norm; None for none.
        ema_decay: of the averaged weights; without effect where the optimizer averages by itself.
        optimizer: see `make_optimizer`.
        accumulation_steps: parts in which a replica takes its share of the batch; see `Trainer`.
        steps_per_call: at most so many steps before the host looks up.
        jit_compile: XLA for the step; None chooses by device.
        deterministic: TensorFlow's op determinism, which bit-identical resuming needs.
        log_every, checkpoint_every, eval_every, sample_every: cadences in steps; 0 is never.
        keep_checkpoints, keep_every: see `Checkpoints`.
        async_checkpoints: whether training goes on while checkpoints are written.
        init_from: a workdir or a checkpoint whose averaged weights a new run begins with.
        eval_images: at most so many images of the evaluation split are used.
        sample_images: how many images the grids drawn during training have; a replica draws as many
            at a time as it trains with.
        sample_sampler, sample_num_steps, sample_projection: how they are drawn; None is as `sample`
            does.

    Returns:
        None, or the number of the signal that stopped it.

    Raises:
        UserError: what was given cannot be used, or the loss is no longer finite.
        TryAgain: a worker is gone.
    """
    given, replicas = dict(locals()), strategy.num_replicas_in_sync
    check_settings(given, replicas)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    cluster = Cluster(strategy)
    with cluster.together():
        files = Workdir(workdir, writes=cluster.is_chief)
    with files.beginning():
        images, evaluation = cluster.chief_first(
            lambda: data.load(data_dir, on_corrupt_image=on_corrupt_image)
        )

        def fit_batches():
            return images.in_order(_FIT_BATCH)

        config.bind("Model.image_shape", images.image_shape)
        pin_basis()
        # After the data: preparing them draws from Python's generator, as Keras 3's weights do.
        keras.utils.set_random_seed(seed)
        rate = WarmUp(learning_rate, warmup_steps)
        with strategy.scope():
            model = build_model()
            settings = build_sample_settings(model)  # also so that config.gin has its parameters
            preview = preview_settings(
                settings, sample_sampler, sample_num_steps, sample_projection
            )
            denoiser = model.denoiser(preview.projection)
            preview.sampler.check(denoiser, preview.num_steps, "train.sample_num_steps")
            state = TrainState(model.network, model.ema_network, make_optimizer(optimizer, rate))
        has_spectrum = needs_spectrum(model, settings, preview)
        if has_spectrum:
            with cluster.together():
                if cluster.is_chief:
                    files.check(config.operative_text(), allow_changes)
                    spectrum = find_spectrum(model, workdir, fit_batches)
                    config.bind("Model.spectrum_sha256", spectrum.sha256())
        first_weights = cluster.of_chief(_first_weights, files, init_from)
        if first_weights:
            with cluster.together():
                state.initialise(first_weights)
        with cluster.together(), files.writing():
            _claim(files, images, allow_changes)
    cluster.chief_first(lambda: prepare_prior(model, workdir, fit_batches))
    if has_spectrum:
        with cluster.together(), files.writing():
            if cluster.is_chief:
                keep_spectrum(model, workdir)
        with cluster.together():
            load_spectrum(model, workdir)
    with cluster.together(), files.writing():
        checkpoints = Checkpoints(
            state.checkpoint(),
            files.checkpoints,
            keep_checkpoints,
            keep_every,
            in_background=async_checkpoints,
            writes=cluster.is_chief,
        )
    start = _restore(files, checkpoints, state, cluster, num_steps)
    if cluster.is_chief:
        origin = "resuming at" if start else "training from"
        if first_weights:
            origin = f"training with the averaged weights of {first_weights} from"
        print(
            f"{origin} step {start} of {num_steps}: {images.num_images} images of "
            f"{images.image_shape}, workdir {workdir}; {describe(strategy)}",
            flush=True,
        )
        if sample_every and sample_images:
            print(f"previews are drawn by {preview}; the last grid by {settings}", flush=True)
    trainer = Trainer(
        strategy=strategy,
        model=model,
        state=state,
        batch_size=batch_size,
        seed=int(seed),
        ema_decay=float(ema_decay),
        clip_norm=None if clip_norm is None else float(clip_norm),
        jit_compile=default_jit_compile(strategy) if jit_compile is None else jit_compile,
        accumulation_steps=accumulation_steps,
    )
    eval_array = np.zeros([0])
    if evaluation is not None and eval_every and eval_images:
        eval_array = pipeline.to_unit_range(evaluation.eval_images(eval_images)).numpy()
        if 0 < len(eval_array) < replicas:
            raise UserError(
                f"{len(eval_array)} evaluation images are too few for {replicas} replicas: more "
                "train.eval_images, if the data have them, or train.eval_every = 0"
            )
    at_a_time = batch_size // (replicas * accumulation_steps)  # what fits in memory
    run = Run(
        trainer=trainer,
        state=state,
        cluster=cluster,
        files=files,
        checkpoints=checkpoints,
        cadences=Cadences(
            calls=steps_per_call,
            log=log_every,
            checkpoint=checkpoint_every,
            evaluate=eval_every if len(eval_array) else 0,
            sample=sample_every if sample_images else 0,
        ),
        learning_rate=lambda step: float(rate(step)),
        eval_loss=lambda: trainer.eval_loss(eval_array),
        preview=previewer(model, preview, strategy, sample_images, seed, at_a_time),
        data_failure=images.failure_by,
    )

    def this_workers_share(context: tf.distribute.InputContext):
        rows = batch_size // context.num_input_pipelines
        low = context.input_pipeline_id * rows
        return pipeline.training_dataset(
            images,
            batch_size=batch_size,
            seed=seed,
            first_step=start,
            flip=flip,
            rows=(low, low + rows),
            replica_batch_size=batch_size // replicas,
        )

    dataset = strategy.distribute_datasets_from_function(this_workers_share)
    stopped_by = run.go(iter(dataset), start, num_steps)
    if stopped_by is None:
        with cluster.together(), files.writing():  # nobody leaves while the chief is at work
            if cluster.is_chief:
                if settings.projection.needs_trust:
                    prepare_trust(model, workdir, fit_batches)
                model.changes = read_history(workdir).changes
                finish(model, num_steps)
    cluster.leave()
    files.close()
    return stopped_by


def _claim(files: Workdir, images: Images, allow_changes: bool) -> None:
    """Makes the workdir this run's, where this worker is the chief."""
    if files.writes:
        saved = saved_checkpoints(files.checkpoints)
        step = checkpoint_step(saved[-1]) if saved else 0
        known = TrainingImages(images.num_images, images.source_key())
        files.claim(config.operative_text(), known, step, allow_changes)


def _first_weights(files: Workdir, init_from: str | None) -> str | None:
    """The checkpoint that a run begins with, if it begins and with another run's weights."""
    if init_from is None or saved_checkpoints(files.checkpoints):
        return None
    return weights_to_start_from(init_from)


def _restore(
    files: Workdir, checkpoints: Checkpoints, state: TrainState, cluster: Cluster, num_steps: int
) -> int:
    """Brings all workers to the newest checkpoint that the chief can read; returns its step, or 0.

    What was measured after that step is forgotten.

    Raises:
        UserError: the run has more steps behind it than it is to have.
    """
    path = cluster.of_chief(checkpoints.restore)
    start = checkpoint_step(path) if path else 0
    if start > num_steps:
        raise UserError(
            f"train.num_steps={num_steps}, but the run in {files.path} is at step {start}: give "
            "that or more; python -m bdm_tf.export --step=N exports an earlier step, if kept"
        )
    with cluster.together():
        if path and not cluster.is_chief:
            checkpoints.restore_from(find_checkpoint(files.path, start))
    with cluster.together(), files.writing():
        files.forget_after(start)
    state.window.load()
    return start
