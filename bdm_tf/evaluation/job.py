"""`evaluate`: draw samples, hand them and the real images to the evaluators, say what was done."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

import gin
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

import bdm_tf
from bdm_tf import config
from bdm_tf.classes import asked_for
from bdm_tf.data.images import Images
from bdm_tf.data.labels import images_of_class
from bdm_tf.data.sources import check_source, load_splits
from bdm_tf.evaluation.conditions import Conditions
from bdm_tf.evaluation.evaluator import EVAL_IMAGES, SAMPLES, Context, Evaluator, Unavailable
from bdm_tf.evaluation.features import make_features
from bdm_tf.evaluation.paths import Paths
from bdm_tf.evaluation.reference import Reference
from bdm_tf.evaluation.results import finite, key_of
from bdm_tf.evaluation.store import SampleStore
from bdm_tf.gin_messages import about_a_lack
from bdm_tf.replicas import on_replicas
from bdm_tf.system.cluster import Cluster
from bdm_tf.system.errors import (
    UserError,
    check_counts,
    check_flags,
    check_maker,
    check_seed,
    check_text,
)


@gin.register("evaluate")
class Evaluation:
    """Scores a subject; all that can be compiled or computed once is.

    Several workers make the same calls: all compute and have the same figures, the chief writes.

    Attributes:
        cluster: the workers.
        num_images: how many samples are scored.
        best_by: the figure whose lowest value makes a checkpoint the best.

    Args:
        subject: one of `subjects.py`.
        strategy: where it runs; samples, features and likelihoods are spread over the replicas.
        paths: see `Paths`.
        data: the data source with the real images.
        features: makes the feature network.
        evaluators: each makes an evaluator from a `Context`.
        num_images: samples to draw; 0 scores the weights and the data alone.
        batch_size: images at a time, over all replicas.
        num_steps: of the sampler; 0 is the model's own number.
        seed: an integer; the samples are those of `bdm_tf.sample --seed`.
        best_by: see above; None is the first figure.
        tensor_float_32: whether NVIDIA GPUs may round float32 factors to 10 bits.
        label: of a model of images with labels: a class by name or number, whose samples are
            compared with the real images of that class; None draws classes as the training images
            have them.
        guidance: of such a model; None is its own.

    Raises:
        UserError: what was given cannot be used.
    """

    def __init__(
        self,
        subject,
        strategy: tf.distribute.Strategy,
        paths: Paths,
        *,
        data=gin.REQUIRED,
        features: Callable = gin.REQUIRED,
        evaluators: Sequence[Callable[[Context], Evaluator]] = gin.REQUIRED,
        num_images: int = 50_000,
        batch_size: int = 100,
        num_steps: int = 0,
        seed: int = 0,
        best_by: str | None = None,
        tensor_float_32: bool = False,
        label: str | int | None = None,
        guidance: float | None = None,
    ):
        self._began = time.monotonic()
        self._subject, self._strategy, self._paths = subject, strategy, paths
        self.cluster = Cluster(strategy)
        self._num_steps, self._seed = num_steps, seed
        self._tensor_float_32 = tensor_float_32
        check_counts("evaluate", 0, num_images=num_images, num_steps=num_steps)
        check_counts("evaluate", 1, 10_000, batch_size=batch_size)
        check_seed("evaluate.seed", seed)
        check_flags("evaluate", tensor_float_32=tensor_float_32)
        if best_by is not None:
            check_text("evaluate", best_by=best_by)
        check_source("evaluate.data", data)
        check_maker("evaluate.features", features, "@PixelFeatures")
        if not isinstance(evaluators, (list, tuple)) or not all(map(callable, evaluators)):
            raise UserError(
                f"evaluate.{evaluators=} must be a list of what makes them, like [@FrechetDistance]"
            )
        self._conditions = Conditions(
            subject.classes, *asked_for(subject.classes, "evaluate.", label, guidance)
        )
        self._batch_size = self._whole_batch(batch_size)
        there = getattr(subject, "num_images", num_images)
        self.num_images = min(num_images, there)
        if there < num_images and self.cluster.is_chief:
            print(f"scoring the {there} images that there are, not {num_images}")
        if 0 < num_images < there:
            subject.take(num_images, seed)
            if self.cluster.is_chief:
                print(f"scoring {num_images} of the {there} images, drawn at random")
        # A convolution of one pass in 10 bits moves features by more than figures are quoted to.
        tf.config.experimental.enable_tensor_float_32_execution(tensor_float_32)
        self._features = self.cluster.chief_first(  # who may have to download it
            lambda: make_features(paths.features) if paths.features else features()
        )
        self.cluster.of_chief(paths.check)
        train, evaluation = self.cluster.chief_first(
            lambda: load_splits(data, paths.data_dir, paths.on_corrupt_image)
        )
        if train.image_shape != tuple(subject.image_shape):
            raise UserError(
                f"the samples have shape {tuple(subject.image_shape)}, the images of the data set "
                f"{train.image_shape}: name their data set in evaluate.data, or convert --images "
                "to that size and to grey or colour as there"
            )
        splits: dict[str, Images | None] = {"train": train, "eval": evaluation}
        if self._conditions.label is not None:
            names, number = subject.classes.names, self._conditions.label
            splits = {k: s and images_of_class(s, names, number) for k, s in splits.items()}
        self._features.check_shape(subject.image_shape)
        self._extract = on_replicas(strategy, self._features, self._batch_size)
        self._reference = Reference(
            splits,
            self._features,
            self._extract,
            self._batch_size,
            paths.cache_dir,
            paths.statistics,
            self.cluster,
        )
        if paths.export_statistics:
            self.cluster.of_chief(self._reference.check_export, paths.export_statistics)
        self._check_seen_by_all(self._reference.protocol())
        self._store: SampleStore | None = None
        self._skipped: dict[str, str] = {}
        self._evaluators = self._made(evaluators)
        if not self._evaluators:
            reasons = ", ".join(f"{name}: {reason}" for name, reason in self._skipped.items())
            raise UserError(f"evaluate.evaluators: there is nothing to measure ({reasons})")
        names = [name for evaluator in self._evaluators for name in evaluator.names]
        if len(set(names)) < len(names):
            raise UserError(f"evaluate.evaluators measures a figure twice: {', '.join(names)}")
        self.best_by = best_by or names[0]
        if self.best_by not in names:
            raise UserError(f"evaluate.best_by={best_by!r} must be one of {', '.join(names)}")
        self._draw = subject.draw(self._batch_size, seed, num_steps, self._conditions)

    def protocol(self) -> dict:
        """All that the figures of this subject depend on."""
        return {
            **self._subject.describe(self._seed, self._num_steps),
            **self._conditions.describe(),
            "num_images": self.num_images,
            "batch_size": self._batch_size,
            "tensor_float_32": self._tensor_float_32,
            "image_shape": list(self._subject.image_shape),
            "data": self._reference.protocol(),
            **self._features.describe(),
            "evaluators": _settings(self._evaluators),
        }

    def score(self, scratch: str) -> dict:
        """Measures everything.

        Args:
            scratch: a folder for finished batches, which stay there until `clear` is called.

        Returns:
            "figures", "skipped" and "protocol".
        """
        protocol = self.protocol()
        self._check_seen_by_all(protocol)
        for evaluator in self._evaluators:
            evaluator.start()
        self._score_samples(scratch, protocol)
        self._score_eval_images()
        figures: dict[str, dict] = {}
        silent = not self.cluster.is_chief
        with tqdm(self._evaluators, "measuring", delay=2, disable=silent) as bar:
            for evaluator in bar:
                bar.set_postfix_str(", ".join(evaluator.names))
                figures |= evaluator.result()
        if self._paths.export_statistics:
            with self.cluster.together():
                self._reference.export(self._paths.export_statistics)
        began, self._began = self._began, time.monotonic()
        devices = tf.config.list_logical_devices()
        protocol |= {
            "versions": {
                "bdm_tf": bdm_tf.__version__,
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            "device": ", ".join(sorted({device.device_type for device in devices})),
            "replicas": self._strategy.num_replicas_in_sync,
            "wall_seconds": round(time.monotonic() - began, 1),
            "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        return {"figures": finite(figures), "skipped": self._skipped, "protocol": protocol}

    def clear(self) -> None:
        """Removes the finished batches; to be called when the results are safe."""
        if self._store is not None:
            self._store.clear()

    def wants_files(self) -> bool:
        """Whether more is asked for than results."""
        return bool(self._paths.save_samples or self._paths.export_statistics)

    def _made(self, evaluators) -> list[Evaluator]:
        context = Context(
            num_images=self.num_images,
            features=self._features,
            reference=self._reference,
            model=self._subject.model,
            on_replicas=functools.partial(on_replicas, self._strategy, batch_size=self._batch_size),
            seed=self._seed,
            conditions=self._conditions,
        )
        made = []
        for make in evaluators:
            try:
                made.append(make(context))
            except Unavailable as reason:
                self._skipped[reason.figure] = reason.message
        return made

    def _score_samples(self, scratch: str, protocol: dict) -> None:
        interested = [e for e in self._evaluators if e.consumes == SAMPLES]
        if not self.num_images or not (interested or self._paths.save_samples):
            return
        drawn_by = {k: v for k, v in protocol.items() if k not in ("data", "evaluators")}
        drawn_by |= {"num_images": None, "replicas": self._strategy.num_replicas_in_sync}
        folder = os.path.join(scratch, f"samples-{key_of(drawn_by)[:16]}")
        self._store = SampleStore(folder, self._draw, self._extract, self._batch_size, self.cluster)
        for batch in self._store.batches(self.num_images):
            for evaluator in interested:
                evaluator.update(batch)
        if self._paths.save_samples:
            with self.cluster.together():
                self._store.keep_images(self._paths.save_samples, self.num_images)

    def _score_eval_images(self) -> None:
        interested = [e for e in self._evaluators if e.consumes == EVAL_IMAGES]
        if not interested:
            return
        start = 0
        for images in self._reference.batches("eval"):
            index = np.arange(start, start + len(images))
            for evaluator in interested:
                evaluator.update({"index": index, "image": images})
            start += len(images)

    def _check_seen_by_all(self, protocol: dict) -> None:
        keys = self.cluster.everyone([int(key_of(protocol)[:15], 16)])
        if (keys != keys[0]).any():
            raise UserError(
                "the workers do not see the same images or weights: --workdir, --saved_model, "
                "--images and --data_dir must lead all of them to the same files"
            )

    def _whole_batch(self, batch_size: int) -> int:
        replicas = self._strategy.num_replicas_in_sync
        if batch_size % replicas:
            raise UserError(f"--batch_size={batch_size} is not divisible by {replicas} replicas")
        # A SavedModel draws whole chunks: other sizes would draw some of them twice.
        chunk = getattr(self._subject, "chunk_size", 1) * replicas
        return max(batch_size // chunk, 1) * chunk


def make_evaluation(subject, strategy: tf.distribute.Strategy, paths: Paths) -> Evaluation:
    """The evaluation of gin's current configuration.

    Raises:
        UserError: the configuration does not describe one.
    """
    try:
        return gin.get_configurable("evaluate")(subject, strategy, paths)
    except UserError:
        raise
    except (TypeError, RuntimeError) as error:
        lacks = str(error).startswith("Required bindings")
        if not lacks and "gin" not in str(error) and "argument" not in str(error):
            raise
        if message := about_a_lack(str(error)):
            raise UserError(message) from error
        reason = str(error).splitlines()[0]
        reason += ": give a file of gin/eval" if lacks else ""
        raise UserError(f"evaluate cannot be built from the gin parameters: {reason}") from error


def _settings(evaluators: list[Evaluator]) -> dict[str, str]:
    """The gin parameters that the evaluators were made with."""
    names = {type(evaluator).__name__ for evaluator in evaluators}
    values = config.called_parameters()
    return {k: v for k, v in values.items() if k.split("/")[-1].split(".")[0] in names}
