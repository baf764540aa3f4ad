"""`train`: open the workdir, load the data, build, restore, train, finish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tensorflow as tf

from bdm_tf.classes import Classes
from bdm_tf.data import pipeline
from bdm_tf.data.images import Images
from bdm_tf.data.labels import labels_among
from bdm_tf.data.sources import load_splits
from bdm_tf.fitted import prepare_trust
from bdm_tf.history import read_history
from bdm_tf.model import Model
from bdm_tf.saved_models import warn_of_few_steps
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import UserError
from bdm_tf.system.paths import expanded
from bdm_tf.training.checkpoints import Checkpoints
from bdm_tf.training.preparation import (
    Parts,
    build_parts,
    claim,
    initialise,
    keep_what_was_measured,
    measure_spectrum_if_needed,
    open_checkpoints,
    restore,
    try_own_samplers,
)
from bdm_tf.training.previews import previewer
from bdm_tf.training.run import Cadences, Run
from bdm_tf.training.settings import TrainingSettings, training_settings
from bdm_tf.training.strategy import default_jit_compile, describe
from bdm_tf.training.trainer import Trainer
from bdm_tf.training.workdir import Workdir

_FIT_BATCH = 500  # images at a time, when a prior is fitted or a spectrum measured


def train(
    workdir: str,
    strategy: tf.distribute.Strategy,
    finish: Callable[[Model, int], None],
    *,
    data_dir: str | None = None,
    on_corrupt_image: str = "stop",
    allow_changes: bool = False,
) -> int | None:
    """Trains a model in a workdir, or goes on with the run that is there.

    How, gin says: see `TrainingSettings`, `Model` and `SampleSettings`.

    Args:
        workdir: the run's folder, in which `~` is the home folder; with several workers, one that
            all of them see.
        strategy: where to train.
        finish: called by the chief with the model and its step once the last step is done.
        data_dir, on_corrupt_image: handed to the data source's `load`.
        allow_changes: go on with other values of what can be changed; see `Workdir.claim`.

    Returns:
        None, or the number of the signal that stopped it.

    Raises:
        UserError: what was given cannot be used, or the loss is no longer finite.
        TryAgain: a worker is gone.
    """
    workdir = expanded("workdir", workdir)
    if data_dir is not None:
        data_dir = expanded("data_dir", data_dir)
    settings = training_settings()
    _check_places(workdir, data_dir)
    settings.check_shared(strategy.num_replicas_in_sync)
    cluster = Cluster(strategy)
    with cluster.together():
        files = Workdir(workdir, writes=cluster.is_chief)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    with files.beginning():
        images, held_out = cluster.chief_first(
            lambda: load_splits(settings.data, data_dir, on_corrupt_image)
        )
        if getattr(settings.data, "splits_overlap", False):  # which is no harm in an evaluation
            raise UserError(
                "the training and the evaluation split of train.data share images: choose others, "
                "or TFDSImages.eval_split = None"
            )
        batches = partial(images.in_order, _FIT_BATCH)
        parts = build_parts(settings, images, strategy)
        evaluated = _evaluation_images(
            settings, held_out, parts.model.classes, strategy.num_replicas_in_sync
        )
        measure_spectrum_if_needed(parts, files, cluster, batches, allow_changes)
        first_weights = initialise(parts, files, cluster, settings.init_from)
        claim(files, cluster, images, settings.num_steps, allow_changes)
    keep_what_was_measured(parts, files, cluster, batches)
    try_own_samplers(parts)
    checkpoints = open_checkpoints(settings, parts.state, files, cluster)
    start = restore(files, checkpoints, parts.state, cluster, settings.log_every)
    if cluster.is_chief:
        warn_of_few_steps(parts.samples.about(parts.model), 0)
        where = f"workdir {workdir}; {describe(strategy)}"
        _announce(settings, parts, images, start, first_weights, where)
    run = _make_run(settings, parts, images, evaluated, strategy, cluster, files, checkpoints)
    with_labels = parts.model.classes is not None
    training_batches = _training_batches(settings, images, with_labels, start, strategy)
    stopped_by = run.go(training_batches, start, settings.num_steps)
    if stopped_by is None:
        with cluster.together(), files.writing():  # nobody leaves while the chief is at work
            if cluster.is_chief:
                if parts.samples.projection.needs_trust:
                    labels = images.labels if with_labels else None
                    prepare_trust(parts.model, workdir, batches, labels)
                parts.model.changes = read_history(workdir).changes
                finish(parts.model, settings.num_steps)
    cluster.leave()
    files.close()
    return stopped_by


def _check_places(workdir: str, data_dir: str | None) -> None:
    """Raises a `UserError` if the run would lie among its own images."""
    places = [place for place in (workdir, data_dir) if place and "://" not in place]
    if len({os.path.realpath(place) for place in places}) < len(places):
        raise UserError(
            f"--workdir={workdir} is --data_dir, too: the run's own files would lie among the "
            "images; give another --workdir"
        )


def _announce(
    settings: TrainingSettings,
    parts: Parts,
    images: Images,
    start: int,
    first_weights: str | None,
    where: str,
) -> None:
    origin = "resuming at" if start else "training from"
    if first_weights:
        origin = f"training with the averaged weights of {first_weights} from"
    print(
        f"{origin} step {start} of {settings.num_steps}: {images.num_images} images of "
        f"{images.image_shape}, {where}",
        flush=True,
    )
    if parts.model.classes is not None:
        print(parts.model.classes.in_words(), flush=True)
    if settings.sample_every and settings.sample_images:
        previews, samples = (s.in_words(parts.model) for s in (parts.previews, parts.samples))
        print(f"previews are drawn by {previews}; the last grid by {samples}", flush=True)


def _make_run(
    settings: TrainingSettings,
    parts: Parts,
    images: Images,
    evaluated: tuple[np.ndarray, ...],
    strategy: tf.distribute.Strategy,
    cluster: Cluster,
    files: Workdir,
    checkpoints: Checkpoints,
) -> Run:
    """What takes the steps, with what is due between them."""
    replicas, jit_compile = strategy.num_replicas_in_sync, settings.jit_compile
    trainer = Trainer(
        strategy=strategy,
        model=parts.model,
        state=parts.state,
        batch_size=settings.batch_size,
        seed=int(settings.seed),
        ema_decay=float(settings.ema_decay),
        clip_norm=None if settings.clip_norm is None else float(settings.clip_norm),
        jit_compile=default_jit_compile(strategy) if jit_compile is None else jit_compile,
        accumulation_steps=settings.accumulation_steps,
    )
    preview = previewer(
        parts.model,
        parts.previews,
        strategy,
        settings.sample_images,
        settings.seed,
        at_a_time=settings.batch_size // (replicas * settings.accumulation_steps),  # what fits
    )
    return Run(
        trainer=trainer,
        state=parts.state,
        cluster=cluster,
        files=files,
        checkpoints=checkpoints,
        cadences=Cadences(
            calls=settings.steps_per_call,
            log=settings.log_every,
            checkpoint=settings.checkpoint_every,
            evaluate=settings.eval_every if evaluated else 0,
            sample=settings.sample_every if settings.sample_images else 0,
        ),
        learning_rate=lambda step: float(parts.rate(step)),
        eval_loss=lambda: trainer.eval_loss(*evaluated),
        preview=preview,
        data_failure=images.failure_by,
    )


def _evaluation_images(
    settings: TrainingSettings, held_out: Images | None, classes: Classes | None, replicas: int
) -> tuple[np.ndarray, ...]:
    """What the evaluation loss is measured on: float32 `[N, H, W, C]` in [-1, 1] and, where labels
    are learnt, int32 `[N]`; empty for nothing.
    """
    if held_out is None or not settings.eval_every or not settings.eval_images:
        return ()
    count = min(settings.eval_images, held_out.num_images)
    places = np.arange(count) * held_out.num_images // count  # files may be sorted by class
    array = pipeline.to_unit_range(held_out.at(places)).numpy()
    if 0 < len(array) < replicas:
        raise UserError(
            f"{len(array)} evaluation images are too few for {replicas} replicas: more "
            "train.eval_images, if the data have them, or train.eval_every = 0"
        )
    if classes is None:
        return (array,)
    return array, labels_among(held_out, classes.names)[places]


def _training_batches(
    settings: TrainingSettings,
    images: Images,
    with_labels: bool,
    start: int,
    strategy: tf.distribute.Strategy,
) -> Iterator:
    """Global batches from number `start` on, of which each worker reads its share."""

    def this_workers_share(context: tf.distribute.InputContext):
        rows = settings.batch_size // context.num_input_pipelines
        low = context.input_pipeline_id * rows
        return pipeline.training_dataset(
            images,
            batch_size=settings.batch_size,
            seed=settings.seed,
            first_step=start,
            flip=settings.flip,
            rows=(low, low + rows),
            replica_batch_size=settings.batch_size // strategy.num_replicas_in_sync,
            with_labels=with_labels,
        )

    return iter(strategy.distribute_datasets_from_function(this_workers_share))
