"""What is checked: one core's training step, or its loop of sampling steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import gin
import numpy as np
import scipy.fft
import tensorflow as tf

from bdm_tf import config
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.model import Model, build_model, build_sample_settings
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from bdm_tf.training.optimizers import WarmUp, make_optimizer
from bdm_tf.training.settings import TrainingSettings
from bdm_tf.training.state import TrainState
from bdm_tf.training.trainer import Trainer

Step = tuple[Callable, list[tf.TensorSpec]]


def use_defaults(image_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Completes gin's configuration by what training takes from data and hardware.

    Args:
        image_shape: `(H, W, C)`; None asks the data source, which needs no data for it.

    Returns:
        The images' shape.

    Raises:
        UserError: the configuration names no data source.
    """
    shape = image_shape or setting("data").image_shape()
    config.bind("Model.image_shape", shape)
    if setting("label_dropout") is not None:
        _bind_classes()
    method = config.parameters(gin.config_str()).get("DCT.method", "auto")
    if method.strip("'") == "auto":
        config.bind("DCT.method", "matmul")  # which "auto" is on a TPU
    return shape


def _bind_classes() -> None:
    """Gives the model its classes, with an image of each: how many there are does not matter."""
    names: tuple[str, ...] = getattr(setting("data"), "class_names", tuple)()
    if not names:
        raise UserError(
            "train.label_dropout: this data source knows its classes by the images alone; give "
            "train.label_dropout = None, or a TFDS data set with labels"
        )
    config.bind("Model.class_names", names)
    config.bind("Model.class_counts", [1] * len(names))
    config.bind("Model.label_dropout", float(setting("label_dropout")))


def setting(name: str):
    """The value of a parameter of `train`: gin's or the default."""
    default = inspect.signature(TrainingSettings).parameters[name].default
    value = gin.get_bindings("train").get(name, default)
    if value is gin.REQUIRED:
        raise UserError(f"train.{name} is not set: give an experiment's --gin_file")
    return value


def training_step(model: Model, batch_size: int, cores: int) -> Step:
    """The step that each core takes: everything but the sum over the cores.

    Args:
        model: the model.
        batch_size: images in the global batch.
        cores: that share it.

    Returns:
        A function of an image piece `[batch_size / cores, H, W, C]`, the number of its first row,
        the step's number and, of images with labels, their classes, and its specs.

    Raises:
        UserError: the batch cannot be shared.
    """
    _check_divisible(batch_size, cores * setting("accumulation_steps"))
    trainer, _ = make_trainer(model, batch_size)

    def step(image, row, number, *label):
        return trainer.replica_step(
            {"image": image, "row": row, **dict(zip(["label"], label))}, number
        )

    count = batch_size // cores
    piece = tf.TensorSpec([count, *model.image_shape], tf.float32)
    label = [tf.TensorSpec([count], tf.int32)] if model.classes else []
    return step, [piece, tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int64), *label]


def make_trainer(model: Model, batch_size: int) -> tuple[Trainer, TrainState]:
    """What takes the steps that gin's configuration describes, and a state at step 0."""
    rate = WarmUp(setting("learning_rate"), setting("warmup_steps"))
    optimizer = make_optimizer(setting("optimizer"), rate)
    state = TrainState(model.network, model.ema_network, optimizer)
    trainer = Trainer(
        strategy=tf.distribute.get_strategy(),
        model=model,
        state=state,
        batch_size=batch_size,
        seed=setting("seed"),
        ema_decay=setting("ema_decay"),
        clip_norm=setting("clip_norm"),
        jit_compile=True,
        accumulation_steps=setting("accumulation_steps"),
    )
    return trainer, state


def sampling_loop(model: Model, batch_size: int, cores: int) -> Step:
    """The sampler's loop for one core's images: from a seed and the number of the first image."""
    _check_divisible(batch_size, cores)
    settings = build_sample_settings(model)

    def sample(seed, first):
        return to_uint8(settings.draw(model, seed=seed, first=first, count=batch_size // cores))

    return sample, [tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32)]


STEPS = {"train": training_step, "sample": sampling_loop}


def build(what: str, batch_size: int, cores: int) -> tuple[Model, Step]:
    """The model of gin's configuration and what is to be checked of it, one of `STEPS`."""
    model = build_model()
    spectrum = use_stand_in_spectrum(model)
    if what == "sample" and model.own_prior.is_fitted:
        images = _stand_ins(spectrum.variance)
        model.own_prior.restore(model.own_prior.fit(lambda: [images], model.process))
    return model, STEPS[what](model, batch_size, cores)


def use_stand_in_spectrum(model: Model) -> Spectrum:
    """Does without the training images: a step's program does not depend on their spectrum."""
    i, j = np.ogrid[: model.image_shape[0], : model.image_shape[1]]
    variance = np.broadcast_to(1.0 / (1.0 + i**2 + j**2)[..., None], model.image_shape)
    spectrum = Spectrum(np.zeros(model.image_shape), variance)
    model.use_spectrum(spectrum, "a stand-in")
    return spectrum


def _stand_ins(variance: np.ndarray, count: int = 256) -> np.ndarray:
    """Images of a spectrum, uint8 `[count, H, W, C]`, for priors that are fitted to images."""
    rng = np.random.default_rng(0)
    height, width, _ = variance.shape
    scale = np.sqrt(variance * height * width) / 4
    u = rng.standard_normal((count, *variance.shape)) * scale
    pixels = scipy.fft.idctn(u, axes=(1, 2), norm="ortho")
    return np.clip(np.round(127.5 * (pixels + 1)), 0, 255).astype(np.uint8)


def _check_divisible(batch_size: int, pieces: int) -> None:
    if batch_size % pieces:
        raise UserError(
            f"a batch of {batch_size} cannot be cut into {pieces} equal pieces (chips times "
            "train.accumulation_steps): give another --batch_size or --topology"
        )
