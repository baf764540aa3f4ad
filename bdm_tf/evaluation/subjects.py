"""What can be scored: a run's checkpoints, a SavedModel, images from a file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bdm_tf import config
from bdm_tf.comparison import check_unchanged, ema_decay
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.evaluation.conditions import ANY, Conditions
from bdm_tf.evaluation.stored_images import StoredImages
from bdm_tf.fitted import (
    arrays_sha256,
    check_measured,
    load_spectrum,
    load_trust,
    prepare_prior,
    prior_sha256,
    weights_sha256,
)
from bdm_tf.history import read_history
from bdm_tf.model import (
    Model,
    build_model,
    build_sample_settings,
    use_config,
)
from bdm_tf.replicas import on_replicas
from bdm_tf.saved_models import (
    check_steps,
    classes_of,
    load_saved_model,
    model_info,
    use_saved_config,
    warn_of_few_steps,
)
from bdm_tf.system.checkpoint_files import checkpoint_step, find_checkpoint
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import UserError
from bdm_tf.weights import restore_average

# Owners of parameters that a finished model does not depend on, or that are named elsewhere.
_NO_PARTS = (
    *("train", "export_saved_model", "FusedAdam", "sample"),
    *("TFDSImages", "ImageFolder", "Downsampled"),
)
# Draws images `first ... first + n - 1` as uint8 `[n, H, W, C]`.
Draw = Callable[[int], np.ndarray]


class TrainedRun:
    """The averaged weights of a workdir's checkpoints.

    Args:
        strategy: where it runs.
        workdir: the run's folder.
        trained_with: the parameters of the run's config.gin; gin's current configuration may
            differ from them in how samples are drawn, not in what the model is.

    Raises:
        UserError: it does.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, workdir: str, trained_with: dict[str, str]
    ):
        self._strategy, self._workdir = strategy, workdir
        self._ema_decay = ema_decay(trained_with)
        with strategy.scope():
            self.model: Model = build_model()
            check_unchanged(trained_with)
            self._settings = build_sample_settings(self.model)
        self.classes = self.model.classes
        self._parts = _parts(config.called_parameters())
        self.image_shape = self.model.image_shape
        self._weights: dict = {}

    def restore_step(self, step: int | None) -> None:
        """Takes the weights of the checkpoint of a step, or of the newest that the chief finds.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        found = Cluster(self._strategy).of_chief(find_checkpoint, self._workdir, step)
        checkpoint = find_checkpoint(self._workdir, checkpoint_step(found))
        self.restore(checkpoint)

    def restore(self, checkpoint: str) -> None:
        """Takes the weights of a checkpoint."""
        if not self.model.own_prior.variables:  # a run that is watched may have it only now
            prepare_prior(self.model, self._workdir)
        if self.model.spectrum is None:
            load_spectrum(self.model, self._workdir)
        restore_average(self.model, checkpoint)
        load_trust(self.model, self._workdir)
        check_measured(self.model, self._settings)
        step = checkpoint_step(checkpoint)
        self._weights = {
            "step": step,
            "weights_sha256": weights_sha256(self.model),
            **prior_sha256(self.model.prior.variables),
        }
        if changes := [c for c in read_history(self._workdir).changes if c["step"] < step]:
            self._weights["changes"] = changes

    def describe(self, seed: int, num_steps: int) -> dict:
        """What a result must say about where its images come from."""
        settings = self._settings
        return {
            **self._weights,
            "seed": seed,
            "ema_decay": self._ema_decay,
            "sampler": type(settings.sampler).__name__,
            "num_steps": num_steps or settings.num_steps,
            "projection": type(settings.projection).__name__,
            "model": self._parts,
        }

    def draw(
        self, batch_size: int, seed: int, num_steps: int, conditions: Conditions = ANY
    ) -> Draw:
        """A function that draws a batch of the seed `[0, seed]` with the weights of the moment."""
        count = batch_size // self._strategy.num_replicas_in_sync
        model, settings = self.model, self._settings
        steps = num_steps or settings.num_steps
        settings.sampler.check(model.denoiser(), steps, "evaluate.num_steps (0 is the model's own)")
        warn_of_few_steps(settings.about(model), num_steps)

        def on_replica(first):
            seeds = tf.constant([0, seed])
            given = {"num_steps": steps, **conditions.given(count)}
            x = settings.draw(model, seed=seeds, first=first[0], count=count, **given)
            return to_uint8(x)

        return _from_firsts(self._strategy, on_replica, batch_size)


class ShippedModel:
    """A SavedModel, scored as it stands.

    Raises:
        UserError: it is none, or not one of this library.
    """

    model = None

    def __init__(self, path: str, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.info = model_info(path)
        with strategy.scope():
            self._saved = load_saved_model(path)
        self.image_shape = tuple(self.info["image_shape"])
        self.classes = classes_of(self.info)
        self.chunk_size = int(self.info["config"].get("export_saved_model.chunk_size", 1))
        self._weights = {
            "weights_sha256": arrays_sha256(self._saved.weights),
            **prior_sha256(getattr(self._saved, "prior", {})),
        }

    def describe(self, seed: int, num_steps: int) -> dict:
        """What a result must say about where its images come from."""
        info = self.info
        before = "PixelClip" if info.get("clip") else "NoProjection"  # exported by 0.1.0
        return {
            "step": info["step"],
            **({"changes": info["changes"]} if info.get("changes") else {}),
            "seed": seed,
            "ema_decay": info["ema_decay"],
            **self._weights,
            "sampler": info["sampler"],
            "num_steps": num_steps or info["num_steps"],
            "projection": info.get("projection", before),
            "model": _parts(info["config"]),
            "exported_by": info["versions"],
        }

    def draw(
        self, batch_size: int, seed: int, num_steps: int, conditions: Conditions = ANY
    ) -> Draw:
        """A function that draws a batch of the seed `[0, seed]`."""
        check_steps(self.info, num_steps, "evaluate.num_steps")
        warn_of_few_steps(self.info, num_steps)
        count = batch_size // self._strategy.num_replicas_in_sync

        def on_replica(first):
            return self._saved.sample(
                seed=tf.constant([0, seed]),
                num_images=tf.constant(count),
                num_steps=tf.constant(num_steps),
                first=first[0],
                **conditions.given(count),
            )

        return _from_firsts(self._strategy, on_replica, batch_size)


def open_subject(
    strategy: tf.distribute.Strategy,
    overlay: Callable[[], None],
    *,
    workdir: str | None = None,
    saved_model: str | None = None,
    images: str | None = None,
) -> TrainedRun | ShippedModel | StoredImages:
    """The one subject that is given, and gin's configuration for its evaluation.

    That is what the model was trained with, where there is one, and the user's on top; the data
    set is the one of training, if the user names no other.

    Args:
        strategy: where it runs.
        overlay: adds the user's configuration to gin's current one.
        workdir: gives a `TrainedRun`, without weights as yet.
        saved_model: gives a `ShippedModel`.
        images: gives `StoredImages`.

    Raises:
        UserError: the subject or its configuration cannot be used.
    """
    trained_with: dict[str, str] = {}
    if workdir:
        trained_with = config.parameters(use_config(workdir))
    elif saved_model:
        trained_with = use_saved_config(saved_model)
    else:
        config.parse_text("")
    overlay()
    if "evaluate.data" not in config.parameters(config.operative_text()):
        data = {**trained_with, **config.bound_parameters()}.get("train.data")
        if data is None:
            raise UserError(
                "evaluate.data must name the data set to compare with: give the --gin_file of its "
                'experiment, such as gin/folder.gin, too, or --gin_param="evaluate.data = '
                '@TFDSImages()" and TFDSImages.name'
            )
        config.overlay([], [f"evaluate.data = {data}"])
    if workdir:
        return TrainedRun(strategy, workdir, trained_with)
    return ShippedModel(saved_model, strategy) if saved_model else StoredImages(str(images))


def _parts(parameters: dict[str, str]) -> dict[str, str]:
    """The parameters of the model and the sampler."""
    return {k: v for k, v in parameters.items() if k.split(".")[0] not in _NO_PARTS}


def _from_firsts(strategy, on_replica, batch_size: int) -> Draw:
    replicas = strategy.num_replicas_in_sync
    run = on_replicas(strategy, on_replica)
    offsets = np.arange(replicas, dtype=np.int32) * (batch_size // replicas)
    return lambda first: run(np.int32(first) + offsets)
