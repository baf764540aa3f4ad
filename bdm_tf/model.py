"""The parts that gin chose, put together; weights from a workdir."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from bdm_tf import config, data, diffusion, networks, sampling  # noqa: F401, for gin
from bdm_tf.denoiser import Denoiser
from bdm_tf.errors import UserError
from bdm_tf.files import read_npz, sha256, write_npz
from bdm_tf.keras_versions import raw_variables
from bdm_tf.objectives import Objective
from bdm_tf.parametrisations import Parametrisation, PredictEps
from bdm_tf.priors import Batches, Prior, StandardNormal
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.training.checkpoints import checkpoint_step, find_checkpoint


@gin.register
class Model:
    """A diffusion model: process, objective, and the network twice (weights and their average).

    Args:
        image_shape: `(H, W, C)`.
        network: makes a network from `image_shape`.
        process: makes a process from `image_shape`.
        objective: its loss.
        parametrisation: what the network predicts; None is `PredictEps`.
        prior: where sampling starts; None is `StandardNormal`.

    Raises:
        UserError: the parts do not go together.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        network: Callable,
        process: Callable,
        objective: Objective,
        parametrisation: Parametrisation | None = None,
        prior: Prior | None = None,
    ):
        self.image_shape = tuple(image_shape)
        self.process = process(image_shape=self.image_shape)
        self.objective = objective
        self.parametrisation = parametrisation or PredictEps()
        self.prior = prior or StandardNormal()
        self.network = network(image_shape=self.image_shape)
        self.ema_network = network(image_shape=self.image_shape, name="ema")
        self.parametrisation.check(self.process)
        objective.check(self.denoiser())

    def denoiser(self, clip: bool = False) -> Denoiser:
        """The denoiser with the averaged weights, which samples are drawn with."""
        return self._denoiser(self.ema_network, clip)

    def learner(self) -> Denoiser:
        """The denoiser with the weights that are being trained."""
        return self._denoiser(self.network, clip=False)

    def _denoiser(self, network, clip: bool) -> Denoiser:
        return Denoiser(
            network,
            self.process,
            clip,
            parametrisation=self.parametrisation,
            prior=self.prior,
        )


@gin.register("sample")
class SampleSettings:
    """How finished models are sampled.

    Args:
        sampler: the sampler.
        num_steps: its number of steps, T.
        clip: see `Denoiser`.
    """

    def __init__(self, sampler: Sampler, num_steps: int = 1000, clip: bool = False):
        self.sampler, self.num_steps, self.clip = sampler, num_steps, clip


def build_model() -> Model:
    """The model of gin's current configuration."""
    return _built("Model")


def build_sample_settings(model: Model) -> SampleSettings:
    """The sampling settings of gin's current configuration.

    Raises:
        UserError: they do not go with the model.
    """
    settings = _built("sample")
    settings.sampler.check(model.denoiser(), settings.num_steps, "sample.num_steps")
    return settings


def _built(name: str):
    try:
        return gin.get_configurable(name)()
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name} cannot be built from the gin parameters: {reason}") from error


def pin_basis() -> None:
    """Makes gin's configuration name a user's matrix for good: absolute, and by its content.

    So a run can be used from any folder, and goes on with the matrix that it began with.
    """
    value = config.parameters(config.operative_text()).get("MatrixBasis.path", "None")
    if value == "None":
        return
    path = gin.query_parameter("MatrixBasis.path")
    if "://" not in path:
        path = os.path.abspath(path)
    if tf.io.gfile.exists(path):  # if not, building the basis says so
        config.bind("MatrixBasis.path", path)
        config.bind("MatrixBasis.sha256", sha256(path))


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


def prepare_prior(model: Model, workdir: str, batches: Batches | None = None) -> None:
    """Gives a model the prior of a workdir; fits and writes it, if it is not there yet.

    Args:
        model: the model.
        workdir: where `prior.npz` is, or is to be.
        batches: see `Prior.fit`; without, the prior must be there.

    Raises:
        UserError: it is not, or cannot be read or fitted.
    """
    path = os.path.join(workdir, "prior.npz")
    if tf.io.gfile.exists(path):
        try:
            model.prior.restore(read_npz(path))
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{path} cannot be read: {error}; remove it, and training writes it anew"
            ) from error
    elif model.prior.is_fitted and batches is not None:
        print(f"fitting {type(model.prior).__name__} to the training images", flush=True)
        arrays = model.prior.fit(batches, model.process)
        try:
            write_npz(path, arrays)
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{path} cannot be written: {error}; make room, and the same command goes on"
            ) from error
        model.prior.restore(arrays)
    elif model.prior.is_fitted:
        raise UserError(f"{path} is missing: the training command writes it")


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
    prepare_prior(model, workdir)
    return model, checkpoint_step(checkpoint)
