"""What comes before a run's first step: its parts, what is measured of the images, the workdir."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from bdm_tf import config
from bdm_tf.data.images import Images
from bdm_tf.data.labels import count_classes
from bdm_tf.fitted import (
    find_spectrum,
    keep_spectrum,
    load_spectrum,
    needs_spectrum,
    prepare_prior,
)
from bdm_tf.history import TrainingImages
from bdm_tf.model import Model, build_model, build_sample_settings
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.system.checkpoint_files import (
    checkpoint_step,
    find_checkpoint,
    saved_checkpoints,
    weights_to_start_from,
)
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import UserError
from bdm_tf.training.checkpoints import Checkpoints
from bdm_tf.training.optimizers import WarmUp, make_optimizer
from bdm_tf.training.previews import preview_settings
from bdm_tf.training.settings import TrainingSettings
from bdm_tf.training.state import TrainState
from bdm_tf.training.workdir import Workdir, pin_basis

Batches = Callable[[], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        model, state: what is trained, and what training changes.
        rate: the learning rate of a step.
        samples: how samples are drawn.
        previews: how they are drawn during training.
    """

    model: Model
    state: TrainState
    rate: WarmUp
    samples: SampleSettings
    previews: SampleSettings

    @property
    def has_spectrum(self) -> bool:
        """Whether some part needs the training images' spectrum."""
        return needs_spectrum(self.model, self.samples, self.previews)


def build_parts(
    settings: TrainingSettings, images: Images, strategy: tf.distribute.Strategy
) -> Parts:
    """Builds the parts that gin names, for the training images, with weights from the seed.

    Data come before: preparing them draws from Python's generator, as Keras 3's weights do.

    Raises:
        UserError: they do not go together.
    """
    config.bind("Model.image_shape", images.image_shape)
    if settings.label_dropout is not None:
        counts = count_classes(images)
        _check_num_classes(len(counts))
        config.bind("Model.class_counts", counts)
        config.bind("Model.class_names", images.class_names)
        config.bind("Model.label_dropout", float(settings.label_dropout))
    pin_basis()
    keras.utils.set_random_seed(settings.seed)
    rate = WarmUp(settings.learning_rate, settings.warmup_steps)
    with strategy.scope():
        model = build_model()
        samples = build_sample_settings(model)  # also so that config.gin has its parameters
        previews = preview_settings(
            samples,
            settings.sample_sampler,
            settings.sample_num_steps,
            settings.sample_projection,
        )
        denoiser = model.denoiser(previews.projection)
        previews.sampler.check(denoiser, previews.num_steps, "train.sample_num_steps")
        optimizer = make_optimizer(settings.optimizer, rate)
        state = TrainState(model.network, model.ema_network, optimizer)
    return Parts(model, state, rate, samples, previews)


def _check_num_classes(found: int) -> None:
    """Raises a `UserError` if a network was told of another number of classes than there are."""
    for name, value in config.bound_parameters().items():
        if name.endswith(".num_classes") and value not in (str(found), "None"):
            raise UserError(
                f"{name} = {value}, but the training images have {found} classes: leave it out"
            )


def measure_spectrum_if_needed(
    parts: Parts, files: Workdir, cluster: Cluster, batches: Batches, allow_changes: bool
) -> None:
    """Makes the configuration name the spectrum of the training images; nothing is written yet."""
    if not parts.has_spectrum:
        return
    with cluster.together():
        if cluster.is_chief:
            files.check(config.operative_text(), allow_changes)
            spectrum = find_spectrum(parts.model, files.path, batches)
            config.bind("Model.spectrum_sha256", spectrum.sha256())


def initialise(parts: Parts, files: Workdir, cluster: Cluster, init_from: str | None) -> str | None:
    """Gives a run that begins the averaged weights of another, and returns their checkpoint."""

    def first_weights():
        if init_from is None or saved_checkpoints(files.checkpoints):
            return None
        return weights_to_start_from(init_from)

    path = cluster.of_chief(first_weights)
    if path:
        with cluster.together():
            parts.state.initialise(path)
    return path


def claim(
    files: Workdir, cluster: Cluster, images: Images, num_steps: int, allow_changes: bool
) -> None:
    """Makes the workdir this run's.

    Raises:
        UserError: it is another's, or has more steps behind it than it is to have.
    """
    with cluster.together(), files.writing():
        if cluster.is_chief:
            saved = saved_checkpoints(files.checkpoints)
            step = checkpoint_step(saved[-1]) if saved else 0
            if step > num_steps:
                raise UserError(
                    f"train.num_steps={num_steps}, but the run in {files.path} is at step {step}: "
                    "give that or more; python -m bdm_tf.export --step=N exports an earlier step, "
                    "if kept"
                )
            known = TrainingImages(images.num_images, images.source_key())
            files.claim(config.operative_text(), known, step, allow_changes)


def keep_what_was_measured(
    parts: Parts, files: Workdir, cluster: Cluster, batches: Batches
) -> None:
    """Prior and spectrum: from the workdir, or into it."""
    cluster.chief_first(lambda: prepare_prior(parts.model, files.path, batches))
    if parts.has_spectrum:
        with cluster.together(), files.writing():
            if cluster.is_chief:
                keep_spectrum(parts.model, files.path)
        with cluster.together():
            load_spectrum(parts.model, files.path)


def try_own_samplers(parts: Parts) -> None:
    """Builds a step of samplers that are a user's own: the first samples may be hours away."""
    for sampler in (parts.samples.sampler, parts.previews.sampler):
        if not type(sampler).__module__.startswith("bdm_tf."):
            sampler.try_step(parts.model.denoiser())


def open_checkpoints(
    settings: TrainingSettings, state: TrainState, files: Workdir, cluster: Cluster
) -> Checkpoints:
    """The checkpoints of a workdir, which the chief writes."""
    with cluster.together(), files.writing():
        return Checkpoints(
            state.checkpoint(),
            files.checkpoints,
            settings.keep_checkpoints,
            settings.keep_every,
            in_background=settings.async_checkpoints,
            writes=cluster.is_chief,
        )


def restore(
    files: Workdir,
    checkpoints: Checkpoints,
    state: TrainState,
    cluster: Cluster,
    log_every: int,
) -> int:
    """Brings all workers to the newest checkpoint that the chief can read; returns its step, or 0.

    What was measured after that step is forgotten; what was before it, every `log_every` steps,
    should be there.
    """
    path = cluster.of_chief(checkpoints.restore)
    start = checkpoint_step(path) if path else 0
    with cluster.together():
        if path and not cluster.is_chief:
            checkpoints.restore_from(find_checkpoint(files.path, start))
    with cluster.together(), files.writing():
        files.forget_after(start, is_measured=0 < log_every <= start)
    state.window.load()
    return start
