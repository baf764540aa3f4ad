"""What the network's output means, and the noise and the image that follow from it."""

from __future__ import annotations

import abc

import gin
import tensorflow as tf

from bdm_tf.errors import UserError

_LEAST_SIGNAL = 1e-12  # alpha / sigma; the paper's is 7e-6


class Parametrisation(abc.ABC):
    """Reads f_theta(z_t, t), a prediction in pixel space, `[B, H, W, C]`."""

    def check(self, process) -> None:
        """Raises a `UserError` if noise and image do not follow from it in this process."""
        return

    @abc.abstractmethod
    def target(self, process, *, x, eps, z_t, t) -> tf.Tensor:
        """What a perfect network would answer to `z_t`, `[B, H, W, C]` in pixel space.

        Args:
            process: the diffusion process.
            x: images in [-1, 1].
            eps: the noise in `z_t`, in pixel space.
            z_t: `process.diffuse(x, t, eps)`.
            t: times `[B]`.
        """

    @abc.abstractmethod
    def coefficients(self, process, *, u_f, u_t, t) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `u_eps_hat` and `u_x_hat`, `[B, H, W, C]`.

        Args:
            process: the diffusion process.
            u_f: coefficients of the prediction.
            u_t: coefficients of z_t.
            t: times `[B]`.

        Raises:
            UserError: the two do not follow from such a prediction.
        """


@gin.register
class PredictEps(Parametrisation):
    """`f = eps_hat`, the paper's choice (Eq. 20, 21)."""

    def check(self, process):
        if process.is_deterministic:
            raise UserError("PredictEps needs noise, but sigma_t is 0: choose PredictX")
        alpha, sigma = process.alpha_sigma([1.0])
        if tf.reduce_min(alpha / sigma) < _LEAST_SIGNAL:
            raise UserError(
                "PredictEps divides by alpha_t, which is next to 0 at t = 1: set the blur's "
                "min_scale to 0.001 (Eq. 26), or choose PredictX"
            )

    def target(self, process, *, x, eps, z_t, t):
        return eps

    def coefficients(self, process, *, u_f, u_t, t):
        return u_f, process.u_x_from_u_eps(u_t, u_f, t)


@gin.register
class PredictX(Parametrisation):
    """`f = x_hat`: Appendix B's ablation, and Cold Diffusion's network."""

    def target(self, process, *, x, eps, z_t, t):
        return x

    def coefficients(self, process, *, u_f, u_t, t):
        return process.u_eps_from_u_x(u_t, u_f, t), u_f


@gin.register
class PredictResidual(Parametrisation):
    """`f = x_hat - z_t`: Soft Diffusion's network."""

    def target(self, process, *, x, eps, z_t, t):
        return x - z_t

    def coefficients(self, process, *, u_f, u_t, t):
        u_x = u_f + u_t
        return process.u_eps_from_u_x(u_t, u_x, t), u_x


@gin.register
class PredictV(Parametrisation):
    """`f = v_hat` with `v = (alpha_t u_eps - sigma_t u_x) / sqrt(alpha_t^2 + sigma_t^2)`.

    Salimans & Ho, "Progressive Distillation" (2022), for each frequency; with `alpha_t^2 +
    sigma_t^2 = 1` it is theirs. Not in the paper.
    """

    def check(self, process):
        if process.is_deterministic:
            raise UserError("PredictV needs noise, but sigma_t is 0: choose PredictX")

    def target(self, process, *, x, eps, z_t, t):
        cosine, sine, _ = self._angle(process, t)
        basis = process.basis
        return basis.to_pixel(cosine * basis.to_frequency(eps) - sine * basis.to_frequency(x))

    def coefficients(self, process, *, u_f, u_t, t):
        cosine, sine, length = self._angle(process, t)
        u_t = u_t / length
        return sine * u_t + cosine * u_f, cosine * u_t - sine * u_f

    def _angle(self, process, t):
        alpha_t, sigma_t = process.alpha_sigma(t)
        length = tf.sqrt(alpha_t**2 + sigma_t**2)
        return alpha_t / length, sigma_t / length, length


@gin.register
class PredictStep(Parametrisation):
    """`f = A_(k-1) x - u_k`: the mean one step of K earlier, less what is there (IHDM, Eq. 11).

    Raises:
        UserError: noise or image are asked for; dividing by d_t to find them would magnify errors
            without bound.
    """

    def check(self, process):
        if process.num_steps is None:
            raise UserError("PredictStep needs a blur of K steps, such as LogBlur.num_steps = 200")
        if not process.keeps_scale:
            raise UserError(
                "PredictStep is for processes with a_t = 1, such as BlurringProcess.noise = "
                "@ConstantNoise() without variance_preserving"
            )

    def target(self, process, *, x, eps, z_t, t):
        basis = process.basis
        alpha_s, _ = process.alpha_sigma(t - 1.0 / process.num_steps)
        return basis.to_pixel(alpha_s * basis.to_frequency(x)) - z_t

    def coefficients(self, process, *, u_f, u_t, t):
        raise UserError(
            "PredictStep predicts the image one step earlier, neither noise nor the clean image: "
            "sample with IHDMSampler"
        )
