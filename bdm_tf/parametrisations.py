"""What the network's output means, and the noise and the image that follow from it."""

from __future__ import annotations

import abc

import gin
import tensorflow as tf

from bdm_tf.spectrum import needed
from bdm_tf.system.errors import UserError, check_between, check_flags

_LEAST_SIGNAL = 1e-12  # alpha / sigma; the paper's is 7e-6


class Parametrisation(abc.ABC):
    """Reads f_theta(z_t, t), a prediction in pixel space, `[B, H, W, C]`.

    Attributes:
        needs_spectrum: whether it needs the training images' `Spectrum`.
        num_heads: how many images the network predicts, one after the other in its channels.
    """

    needs_spectrum = False
    num_heads = 1

    def check(self, process) -> None:
        """Raises a `UserError` if noise and image do not follow from it in this process."""
        return

    def network_input(self, process, z_t, t, spectrum=None) -> tf.Tensor:
        """What the network is shown of z_t, `[B, H, W, C]` in pixel space."""
        return z_t

    @abc.abstractmethod
    def target(self, process, *, x, eps, z_t, t, spectrum=None) -> tf.Tensor:
        """What a perfect network would answer to `z_t`, `[B, H, W, C]` in pixel space.

        Args:
            process: the diffusion process.
            x: images in [-1, 1].
            eps: the noise in `z_t`, in pixel space.
            z_t: `process.diffuse(x, t, eps)`.
            t: times `[B]`.
            spectrum: of the training images, where it is known.
        """

    @abc.abstractmethod
    def coefficients(self, process, *, u_f, u_t, t, spectrum=None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `u_eps_hat` and `u_x_hat`, `[B, H, W, C]`.

        Args:
            process: the diffusion process.
            u_f: coefficients of the prediction.
            u_t: coefficients of z_t.
            t: times `[B]`.
            spectrum: of the training images, where it is known.

        Raises:
            UserError: the two do not follow from such a prediction.
        """


@gin.register
class PredictEps(Parametrisation):
    """`f = eps_hat`, the paper's choice (Eq. 20, 21)."""

    def check(self, process):
        if process.is_deterministic:
            raise UserError("PredictEps needs noise, but sigma_t is 0: choose PredictX")
        if process.needs_spectrum:  # its noise is not known yet
            return
        alpha, sigma = process.alpha_sigma([1.0])
        if tf.reduce_min(alpha / sigma) < _LEAST_SIGNAL:
            raise UserError(
                "PredictEps divides by alpha_t, which is next to 0 at t = 1: choose PredictV or "
                "PredictX; or, if BlurSchedule does it, set its min_scale to 0.001 (Eq. 26)"
            )

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        return eps

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        return u_f, process.u_x_from_u_eps(u_t, u_f, t)


@gin.register
class PredictX(Parametrisation):
    """`f = x_hat`: Appendix B's ablation, and Cold Diffusion's network."""

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        return x

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        return process.u_eps_from_u_x(u_t, u_f, t), u_f


@gin.register
class PredictResidual(Parametrisation):
    """`f = x_hat - z_t`: Soft Diffusion's network."""

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        return x - z_t

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
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

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        cosine, sine, _ = self._angle(process, t)
        basis = process.basis
        return basis.to_pixel(cosine * basis.to_frequency(eps) - sine * basis.to_frequency(x))

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        cosine, sine, length = self._angle(process, t)
        u_t = u_t / length
        return sine * u_t + cosine * u_f, cosine * u_t - sine * u_f

    def _angle(self, process, t):
        alpha_t, sigma_t = process.alpha_sigma(t)
        length = tf.sqrt(alpha_t**2 + sigma_t**2)
        return alpha_t / length, sigma_t / length, length


@gin.register
class PredictPreconditioned(Parametrisation):
    """Each frequency's output on one scale: `u_x_hat = m + c_skip (u_t - alpha_t m) + c_out u_f`.

    With m and C the mean and variance of the training images' coefficients and `s^2 = alpha_t^2 C
    + sigma_t^2` the variance of u_t,

        c_skip = alpha_t C / s^2        c_out = sigma_t sqrt(C) / s        c_in = 1 / s

    so that what the network is to predict has mean 0 and variance 1 at every frequency and time,
    and an error of it never counts for more than the images' own standard deviation sqrt(C). It is
    the preconditioning of Karras et al., "Elucidating the Design Space of Diffusion-Based
    Generative Models" (2022), for each frequency: with `C = sigma_d^2` and `a_t = 1` it is theirs.
    A coefficient that never varies (C = 0) is its mean, and the network's output is not read.
    Not in the paper.

    Args:
        scale_input: show the network `V c_in (u_t - alpha_t m)` in place of z_t.
    """

    needs_spectrum = True

    def __init__(self, scale_input: bool = False):
        check_flags("PredictPreconditioned", scale_input=scale_input)
        self._scale_input = scale_input

    def check(self, process):
        if process.is_deterministic:
            raise UserError("PredictPreconditioned needs noise, but sigma_t is 0: choose PredictX")

    def network_input(self, process, z_t, t, spectrum=None):
        if not self._scale_input:
            return z_t
        spectrum = needed(spectrum, type(self).__name__)
        alpha, _, length, _ = self._scales(process, t, spectrum)
        u_t = process.basis.to_frequency(z_t)
        return process.basis.to_pixel((u_t - alpha * spectrum.mean) / length)

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        spectrum = needed(spectrum, type(self).__name__)
        alpha, sigma, length, deviation = self._scales(process, t, spectrum)
        basis = process.basis
        # In units of the standard deviation; a coefficient that never varies is 0.
        u = tf.math.divide_no_nan(basis.to_frequency(x) - spectrum.mean, deviation)
        u_eps = basis.to_frequency(eps)
        return basis.to_pixel((sigma * u - alpha * deviation * u_eps) / length)

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        spectrum = needed(spectrum, type(self).__name__)
        alpha, sigma, length, deviation = self._scales(process, t, spectrum)
        cosine, sine = alpha * deviation / length, sigma / length
        u_t = (u_t - alpha * spectrum.mean) / length
        u_x_hat = spectrum.mean + deviation * (cosine * u_t + sine * u_f)
        return sine * u_t - cosine * u_f, u_x_hat

    def _scales(self, process, t, spectrum):
        alpha, sigma = process.alpha_sigma(t)
        return alpha, sigma, tf.sqrt(alpha**2 * spectrum.variance + sigma**2), spectrum.deviation


@gin.register
class PredictEDM(Parametrisation):
    """`x_hat = c_skip z_t + c_out f`, and the network is shown `c_in z_t`.

    Karras et al. (2022), Eq. 7 and Table 1, with one sigma_t for all frequencies:

        c_skip = sigma_d^2 / s^2    c_out = sigma_t sigma_d / s    c_in = 1 / s
        s^2 = sigma_t^2 + sigma_d^2

    The squared error of f is that of x_hat with their weight, `s^2 / (sigma_t sigma_d)^2`. Where
    frequencies have a sigma_t of their own, it is the schedule's, `process.log_noise_to_signal`.

    Args:
        sigma_data: sigma_d, the standard deviation of the images' pixels, above 0.
    """

    def __init__(self, sigma_data: float = 0.5):
        check_between("PredictEDM.sigma_data", sigma_data, 0, 1e3, without_low=True)
        self._sigma_data = sigma_data

    def check(self, process):
        name = type(self).__name__
        if process.is_deterministic:
            raise UserError(f"{name} needs noise, but sigma_t is 0: choose PredictX")
        if not process.keeps_scale:
            raise UserError(
                f"{name} is for processes with a_t = 1, such as BlurringProcess.noise = "
                "@GeometricNoise() without variance_preserving: choose PredictPreconditioned"
            )

    def network_input(self, process, z_t, t, spectrum=None):
        _, _, length = self._scales(process, t)
        return z_t / length

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        c_skip, c_out, _ = self._scales(process, t)
        return (x - c_skip * z_t) / c_out

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        c_skip, c_out, _ = self._scales(process, t)
        u_x = c_skip * u_t + c_out * u_f
        return process.u_eps_from_u_x(u_t, u_x, t), u_x

    def _scales(self, process, t):
        sigma = tf.exp(process.log_noise_to_signal(t))[:, None, None, None]
        length = tf.sqrt(sigma**2 + self._sigma_data**2)
        return (self._sigma_data / length) ** 2, sigma * self._sigma_data / length, length


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

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        basis = process.basis
        alpha_s, _ = process.alpha_sigma(t - 1.0 / process.num_steps)
        return basis.to_pixel(alpha_s * basis.to_frequency(x)) - z_t

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        raise UserError(
            "PredictStep predicts the image one step earlier, neither noise nor the clean image: "
            "sample with IHDMSampler"
        )
