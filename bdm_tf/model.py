"""The parts that gin chose, put together; weights from a workdir."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

import gin
import tensorflow as tf

from bdm_tf import (  # noqa: F401, for gin
    config,
    data,
    diffusion,
    fitted_priors,
    networks,
    noise_prior,
    relay_prior,
    sampling,
    warm,
)
from bdm_tf.classes import Classes, check_guidable
from bdm_tf.comparison import check_unchanged
from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.fitted import load_spectrum, load_trust, prepare_prior
from bdm_tf.grids import TimeGrid, UniformGrid
from bdm_tf.history import check_unedited, read_history
from bdm_tf.objectives import Objective
from bdm_tf.parametrisations import Parametrisation, PredictEps
from bdm_tf.priors import Prior, StandardNormal
from bdm_tf.projections import Projection
from bdm_tf.sample_settings import SampleSettings
from bdm_tf.spectrum import Spectrum, needed
from bdm_tf.system.checkpoint_files import checkpoint_step, find_checkpoint
from bdm_tf.system.errors import (
    UserError,
    check_image_shape,
    check_kind,
    check_maker,
    first_line,
)
from bdm_tf.system.paths import check_literal, expanded
from bdm_tf.weights import restore_average


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
        times: how training's times are spread; None is `UniformGrid`.
        spectrum_sha256: of the training images' spectrum, which training notes in config.gin; None
            takes any.
        class_names, class_counts, label_dropout: of a model of images with labels; see `Classes`.
            Training notes them, if `train.label_dropout` is given.

    Attributes:
        own_prior: the one given, which is fitted and kept even if samples begin elsewhere.
        prior: where samples begin: the same, or what `use_prior` was given.
        classes: of the images; None where labels are not learnt.
        spectrum: of the training images, once `use_spectrum` was called.
        configuration: of the run that it was loaded from; None is gin's current one.
        changes: of that run's settings while it was trained; see `History`.

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
        times: TimeGrid | None = None,
        spectrum_sha256: str | None = None,
        class_names: Sequence[str] | None = None,
        class_counts: Sequence[int] | None = None,
        label_dropout: float | None = None,
    ):
        check_image_shape("Model.image_shape", image_shape)
        check_maker("Model.network", network, "@UNet")
        check_maker("Model.process", process, "@BlurringProcess")
        if not isinstance(spectrum_sha256, str | None):
            raise UserError(f"Model.{spectrum_sha256=} must be what training noted there")
        self.image_shape = tuple(image_shape)
        self.process = process(image_shape=self.image_shape)
        check_kind("Model.process", self.process, BlurringProcess)
        self.objective = objective
        self.parametrisation = PredictEps() if parametrisation is None else parametrisation
        self.times = UniformGrid() if times is None else times
        check_kind("Model.objective", self.objective, Objective)
        check_kind("Model.parametrisation", self.parametrisation, Parametrisation)
        self.classes: Classes | None = None
        if class_names is not None:
            self.classes = Classes(class_names, class_counts or (), label_dropout or 0.0)
        self.own_prior = StandardNormal() if prior is None else prior
        self.use_prior(self.own_prior)
        check_kind("Model.times", self.times, TimeGrid)
        self.spectrum: Spectrum | None = None
        self.configuration: str | None = None
        self.changes: list[dict] = []
        self.spectrum_sha256 = spectrum_sha256
        heads, given = self.parametrisation.num_heads, {}
        if heads > 1:
            given["output_channels"] = heads * self.image_shape[2]
        if self.classes is not None:
            given["num_classes"] = len(self.classes)
        self.network = network(image_shape=self.image_shape, **given)
        self.ema_network = network(image_shape=self.image_shape, name="ema", **given)
        if self.classes is None and getattr(self.network, "num_classes", None) is not None:
            raise UserError(
                "the network's num_classes is that of the training images: give "
                "train.label_dropout = 0.1 in its place"
            )
        self.parametrisation.check(self.process)
        objective.check(self.denoiser())
        self.times.check(self.process)
        if objective.needs_uniform_times and not isinstance(self.times, UniformGrid):
            raise UserError(
                f"{type(objective).__name__} is an integral over uniform times: give Model.times = "
                "@UniformGrid()"
            )

    def denoiser(self, projection: Projection | None = None) -> Denoiser:
        """The denoiser with the averaged weights, which samples are drawn with."""
        return self._denoiser(self.ema_network, projection)

    def configured(self) -> contextlib.AbstractContextManager:
        """Around what reads gin's configuration: it is this model's there."""
        if self.configuration is None:
            return contextlib.nullcontext()
        return config.apart(self.configuration)

    def learner(self) -> Denoiser:
        """The denoiser with the weights that are being trained."""
        return self._denoiser(self.network, None)

    def losses(self, denoiser: Denoiser, x, t, noise, dropout_seed=None, label=None) -> tf.Tensor:
        """The objective's loss `[B]` of each image; `label` int32 `[B]` where labels are learnt."""
        if label is not None:
            denoiser = denoiser.given(label)
        return self.objective(denoiser, x, t, noise, dropout_seed)

    def times_at(self, places: tf.Tensor) -> tf.Tensor:
        """Training times `[B]` from numbers `[B]` that are uniform in [0, 1]."""
        return self.times.times(self.process, places, self.spectrum)

    def use_spectrum(
        self, spectrum: Spectrum, name: str, way_out: str = "bring that one back"
    ) -> None:
        """Takes the training images' spectrum; `name` is where it comes from.

        Raises:
            UserError: it is not the one that the run began with; `way_out` is what to do then.
        """
        if self.spectrum_sha256 not in (None, spectrum.sha256()):
            raise UserError(
                f"{name} is not the one that the run was trained with, whose SHA-256 is "
                f"{self.spectrum_sha256[:16]}... (Model.spectrum_sha256): {way_out}"
            )
        self.spectrum = spectrum
        self.process.use_spectrum(spectrum)

    def use_prior(self, prior: Prior) -> None:
        """Begins samples there.

        Raises:
            UserError: it is none, or not for this process.
        """
        check_kind("Model.prior", prior, Prior)
        prior.check(self.process)
        if self.classes is not None and isinstance(prior, relay_prior.RelayPrior):
            raise UserError(
                "@RelayPrior() goes on from images of any class, and this model draws the class it "
                "is asked for: train it without train.label_dropout"
            )
        self.prior = prior

    def _denoiser(self, network, projection: Projection | None) -> Denoiser:
        return Denoiser(
            network,
            self.process,
            projection,
            parametrisation=self.parametrisation,
            prior=self.prior,
            spectrum=self.spectrum,
        )


def build_model() -> Model:
    """The model of gin's current configuration."""
    return _built("Model")


def build_sample_settings(model: Model) -> SampleSettings:
    """The sampling settings of a model's configuration; a prior among them becomes the model's.

    Raises:
        UserError: they do not go with the model.
    """
    with model.configured():
        settings = _built("sample")
    if settings.prior is not None:
        model.use_prior(settings.prior)
    settings.sampler.check(model.denoiser(), settings.num_steps, "sample.num_steps")
    if settings.guidance != 1:
        check_guidable(model.classes)
    return settings


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
        UserError: `workdir` is none, or its configuration is damaged or was edited.
    """
    check_literal("--workdir", workdir)
    path = os.path.join(workdir, "config.gin")
    if not tf.io.gfile.exists(path):
        raise UserError(f"--workdir={workdir} is no workdir: it has no config.gin")
    try:
        with tf.io.gfile.GFile(path) as file:
            text = file.read().removeprefix("\ufeff")  # which some editors put there
    except (UnicodeDecodeError, tf.errors.FailedPreconditionError) as error:
        raise _damaged(path, error) from error
    config.import_modules(text)
    try:
        # The file holds training's parameters too: the loop's, any optimizer's.
        config.parse_text(text, skip_unknown=True)
        if "train.num_steps" not in config.parameters(text):
            raise UserError("it lacks train.num_steps")
    except UserError as error:
        raise _damaged(path, error) from error
    check_unedited(workdir, text)
    return text


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged: {first_line(error)}; move it away, and the training command, given "
        "again, writes it anew"
    )


def load_model(
    workdir: str, step: int | None = None, choose: Callable[[], None] | None = None
) -> tuple[Model, int]:
    """Rebuilds a trained model from a workdir alone, with its averaged weights.

    Args:
        workdir: the folder of a run, in which `~` is the home folder.
        step: a checkpoint's step; None is the newest.
        choose: called while gin's configuration is the workdir's, to change how it is sampled.

    Returns:
        The model, which keeps its configuration, and its step. gin's own stays as it is.

    Raises:
        UserError: no such workdir or checkpoint, or `choose` made it another model.
    """
    workdir = expanded("workdir", workdir)
    with config.apart():
        trained_with = config.parameters(use_config(workdir))
        if choose is not None:
            choose()
        checkpoint = find_checkpoint(workdir, step)
        model = build_model()
        check_unchanged(trained_with)
        model.configuration = config.operative_text()
    model.changes = read_history(workdir).changes
    restore_average(model, checkpoint)
    prepare_prior(model, workdir)
    load_spectrum(model, workdir)
    load_trust(model, workdir)
    for part in (model.process, model.parametrisation):
        if part.needs_spectrum:
            needed(model.spectrum, type(part).__name__)
    return model, checkpoint_step(checkpoint)
