"""What the network learns, as losses of single examples."""

from __future__ import annotations

import abc

import gin
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.parametrisations import PredictStep
from bdm_tf.system.errors import UserError


class Objective(abc.ABC):
    """A loss of single examples.

    Attributes:
        needs_uniform_times: whether it is what it says for times uniform in [0, 1] alone.
    """

    needs_uniform_times = False

    @abc.abstractmethod
    def __call__(
        self, denoiser: Denoiser, x, t, noise, dropout_seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns `[B]`, the loss of each example.

        Args:
            denoiser: with the network that learns.
            x: images `[B, H, W, C]` in [-1, 1].
            t: times `[B]` in [0, 1].
            noise: standard normal, shaped like `x`.
            dropout_seed: int32 `[2]`, or None for no dropout.
        """

    def check(self, denoiser: Denoiser) -> None:
        """Raises a `UserError` if the model cannot learn by this loss."""
        if isinstance(denoiser.parametrisation, PredictStep):
            raise UserError(f"{type(self).__name__} does not go with PredictStep: give StepMSE")


@gin.register
class PredictionMSE(Objective):
    """The mean squared error of what the network predicts, in pixel space.

    With `PredictEps` it is Eq. 24 and Algorithm 2, with `PredictX` the ablation of Appendix B.
    """

    def __call__(self, denoiser, x, t, noise, dropout_seed=None):
        process = denoiser.process
        eps = process.basis.noise(noise)
        z_t = process.diffuse(x, t, eps)
        target = denoiser.target(x=x, eps=eps, z_t=z_t, t=t)
        return _mean(tf.square(denoiser.predict(z_t, t, dropout_seed) - target))


@gin.register
class VariationalLoss(Objective):
    """The variational bound per dimension, in nats: Eq. 7 with a weight for each frequency.

    `sum_i w_i(t) (u_eps,i - u_eps_hat,i)^2` with `w_i(t) = -1/2 d log SNR_i / dt`, averaged in
    place of summed.
    """

    def __call__(self, denoiser, x, t, noise, dropout_seed=None):
        process = denoiser.process
        eps = process.basis.noise(noise)
        u_eps_hat, _ = denoiser(process.diffuse(x, t, eps), t, dropout_seed)
        error = process.basis.to_frequency(eps) - u_eps_hat
        return _mean(-0.5 * process.logsnr_slope(t) * tf.square(error))

    def check(self, denoiser):
        super().check(denoiser)
        if denoiser.process.is_deterministic:
            raise UserError("VariationalLoss needs noise, but sigma_t is 0: give ImageL1")


@gin.register
class ImageL1(Objective):
    """The mean absolute error of x_hat in pixel space: Cold Diffusion's loss.

    Where the process has K steps, times are those of the steps.
    """

    def __call__(self, denoiser, x, t, noise, dropout_seed=None):
        process = denoiser.process
        t = process.on_grid(t)
        z_t = process.diffuse(x, t, process.basis.noise(noise))
        _, u_x_hat = denoiser(z_t, t, dropout_seed)
        return _mean(tf.abs(x - process.basis.to_pixel(u_x_hat)))


@gin.register
class BlurredMSE(Objective):
    """`|C_t (x_hat - x)|^2 / sigma_t^2`, averaged: Soft Diffusion's loss, `C_t` being `alpha_t`."""

    def __call__(self, denoiser, x, t, noise, dropout_seed=None):
        process, basis = denoiser.process, denoiser.process.basis
        _, u_x_hat = denoiser(process.diffuse(x, t, basis.noise(noise)), t, dropout_seed)
        alpha_t, sigma_t = process.alpha_sigma(t)
        error = alpha_t * (u_x_hat - basis.to_frequency(x)) / sigma_t
        return _mean(tf.square(error))

    def check(self, denoiser):
        super().check(denoiser)
        if denoiser.process.is_deterministic:
            raise UserError("BlurredMSE divides by sigma_t, which is 0: give ImageL1")


@gin.register
class StepMSE(Objective):
    """IHDM's loss: the summed squared error of the image one step of K earlier (section 2.2).

    Rissanen et al. have images in [0, 1]; on [-1, 1] with twice their sigma the errors are twice
    as large, and a quarter of their squares is the original's loss.

    Args:
        skip_last_step: draw k from 1 ... K - 1, as the original code does by `randint(1, K)`,
            which never trains the step that samples begin with.
    """

    def __init__(self, skip_last_step: bool = False):
        self._skip_last_step = skip_last_step

    def __call__(self, denoiser, x, t, noise, dropout_seed=None):
        process = denoiser.process
        if self._skip_last_step:
            t = t * (1.0 - 1.0 / process.num_steps)
        t = process.on_grid(t)
        eps = process.basis.noise(noise)
        z_t = process.diffuse(x, t, eps)
        target = denoiser.target(x=x, eps=eps, z_t=z_t, t=t)
        error = tf.square(denoiser.predict(z_t, t, dropout_seed) - target)
        return 0.25 * tf.reduce_sum(error, axis=[1, 2, 3])

    def check(self, denoiser):
        if not isinstance(denoiser.parametrisation, PredictStep):
            raise UserError(
                "StepMSE goes with Model.parametrisation = @PredictStep() alone; others learn by "
                "PredictionMSE, as in gin/base/ihdm_gaussian.gin"
            )


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(values, axis=[1, 2, 3])
