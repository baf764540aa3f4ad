"""The parts that gin chose, put together; weights from a workdir."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from bdm_tf import config, data, diffusion, networks, objectives, sampling  # noqa: F401, for gin
from bdm_tf.denoiser import Denoiser
from bdm_tf.errors import UserError
from bdm_tf.training.checkpoints import checkpoint_step, find_checkpoint
from bdm_tf.training.state import raw_variables


@gin.register
class Model:
    """A diffusion model: process, objective, and the network twice (weights and their average).

    Args:
        image_shape: `(H, W, C)`.
        network: makes a network from `image_shape`.
        process: makes a process from `image_shape`.
        objective: what the network learns.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        network: Callable,
        process: Callable,
        objective: Callable,
    ):
        self.image_shape = tuple(image_shape)
        self.process = process(image_shape=self.image_shape)
        self.objective = objective
        self.network = network(image_shape=self.image_shape)
        self.ema_network = network(image_shape=self.image_shape, name="ema")

    def denoiser(self, clip: bool = False) -> Denoiser:
        """The denoiser with the averaged weights, which samples are drawn with."""
        return Denoiser(self.ema_network, self.process, clip)


@gin.register("sample")
class SampleSettings:
    """How finished models are sampled.

    Args:
        sampler: the sampler.
        num_steps: its number of steps, T.
        clip: see `Denoiser`.
    """

    def __init__(self, sampler: Callable, num_steps: int = 1000, clip: bool = False):
        self.sampler, self.num_steps, self.clip = sampler, num_steps, clip


def build_model() -> Model:
    """The model of gin's current configuration."""
    return _built("Model")


def build_sample_settings() -> SampleSettings:
    """The sampling settings of gin's current configuration."""
    return _built("sample")


def _built(name: str):
    try:
        return gin.get_configurable(name)()
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} cannot be built from the gin parameters: {reason}") from error


def use_config(workdir: str) -> str:
    """Makes the configuration of a workdir gin's current one and returns its text.

    Raises:
        UserError: `workdir` is none.
    """
    path = os.path.join(workdir, "config.gin")
    if not tf.io.gfile.exists(path):
        raise UserError(f"--workdir={workdir} is no workdir: it has no config.gin")
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    # The file holds training's parameters too: the loop's, any optimizer's.
    config.parse_text(text, skip_unknown=True)
    return text


def restore_average(model: Model, checkpoint: str) -> None:
    """Gives a model the averaged weights of a checkpoint."""
    weights = raw_variables(model.ema_network.trainable_variables)
    saved = tf.train.Checkpoint(ema_weights=weights)
    saved.restore(checkpoint).expect_partial().assert_existing_objects_matched()


def load_model(workdir: str, step: int | None = None) -> tuple[Model, int]:
    """Rebuilds a trained model from a workdir alone, with its averaged weights.

    Args:
        workdir: what `launch/train.py` wrote.
        step: a checkpoint's step; None is the newest.

    Returns:
        The model and its step. gin's configuration is then that of the workdir.

    Raises:
        UserError: no such workdir or checkpoint.
    """
    use_config(workdir)
    checkpoint = find_checkpoint(workdir, step)
    model = build_model()
    restore_average(model, checkpoint)
    return model, checkpoint_step(checkpoint)
