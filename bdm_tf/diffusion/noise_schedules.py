"""How fast noise takes over: the scalars a_t and sigma_t that all frequencies share.

Differences between two times are given in closed form, because the denoising distribution needs
`log SNR(t) - log SNR(s)` for `t - s` as small as 1/4000, where subtracting two float32 logarithms
would lose the digits that matter.
"""

from __future__ import annotations

import abc
import math

import gin
import tensorflow as tf

from bdm_tf.system.errors import check_between, check_order

_HALVINGS = 30  # of [0, 1], to find a time to float32
_STRONGEST = 1e6  # sigma
_FARTHEST = 80.0  # log-SNR, whose exponential must be a float32


class NoiseSchedule(abc.ABC):
    """a_t and sigma_t for t in [0, 1]; log-SNR is `log(a_t^2 / sigma_t^2)`.

    A schedule of one's own may also return one sigma_t for each frequency (Eq. 19), in shapes that
    broadcast to `[B, H, W, 1]` where t is `[B, 1, 1, 1]`.
    """

    is_zero = False  # whether sigma_t is 0 throughout
    keeps_scale = False  # whether a_t is 1 throughout
    needs_spectrum = False  # whether sigma_t depends on the training images' spectrum
    blurs = False  # whether a_t is less at high frequencies

    def for_images(self, basis, image_shape, spectrum=None) -> NoiseSchedule:
        """This schedule for images `(H, W, C)`, and of their spectrum, once it is known."""
        return self

    @abc.abstractmethod
    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `a_t` and `sigma_t`, shaped like `t`."""

    @abc.abstractmethod
    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `logsnr(t) - logsnr(s)` without cancellation; never positive for s < t."""

    @abc.abstractmethod
    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d logsnr(t) / dt`, never positive, shaped like `t`."""

    def log_noise_to_signal(self, t: tf.Tensor) -> tf.Tensor:
        """`log(sigma_t / a_t)` for t `[B]`; its mean, if frequencies have their own."""
        a_t, sigma_t = self.a_sigma(t[:, None, None, None])
        return tf.reduce_mean(tf.math.log(sigma_t / a_t), axis=[1, 2, 3])

    def time_at(self, log_noise_to_signal: tf.Tensor) -> tf.Tensor:
        """The inverse of `log_noise_to_signal`, `[B]`, by bisection where no form is known."""
        wanted = log_noise_to_signal

        def halve(i, low, high):
            middle = 0.5 * (low + high)
            above = self.log_noise_to_signal(middle) > wanted
            return i + 1, tf.where(above, low, middle), tf.where(above, middle, high)

        ends = [tf.zeros_like(wanted), tf.ones_like(wanted)]
        _, low, high = tf.while_loop(lambda i, *_: i < _HALVINGS, halve, [0, *ends])
        return 0.5 * (low + high)

    def importance_times(self, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Times at which a likelihood is best estimated, from numbers uniform in [0, 1].

        Returns:
            t `[B]` and its probability density `[B]`; uniform, if the schedule knows no better.
        """
        return places, tf.ones_like(places)

    def importance_probability(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The probability `[B]` that a time of `importance_times` falls between s and t, `[B]`."""
        return t - s


@gin.register
class CosineSchedule(NoiseSchedule):
    """The variance-preserving cosine schedule, truncated in log-SNR (section 4, Appendix A.1).

    With `tan(phi_t) = sigma_t / a_t` the schedule is the straight line `phi_t = phi_0 + (phi_1 -
    phi_0) t`, so `a_t = cos(phi_t)` and `sigma_t = sin(phi_t)`.

    Args:
        logsnr_min: log(a^2 / sigma^2) at t = 1.
        logsnr_max: log(a^2 / sigma^2) at t = 0; must be the larger of the two.
    """

    def __init__(self, logsnr_min: float = -10.0, logsnr_max: float = 10.0):
        check_between("CosineSchedule.logsnr_max", logsnr_max, -_FARTHEST, _FARTHEST)
        check_between("CosineSchedule.logsnr_min", logsnr_min, -_FARTHEST, _FARTHEST)
        check_order("CosineSchedule", logsnr_min=logsnr_min, logsnr_max=logsnr_max)
        self._phi_0 = math.atan(math.exp(-0.5 * logsnr_max))
        # pi/2 - phi_1, kept as such: cos(phi) near pi/2 is accurate only as the sine of this.
        self._psi_1 = math.atan(math.exp(0.5 * logsnr_min))
        self._slope = math.pi / 2 - self._psi_1 - self._phi_0

    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `a_t` and `sigma_t`, shaped like `t` in [0, 1]; `a_t^2 + sigma_t^2 = 1`."""
        return tf.sin(self._psi_1 + self._slope * (1.0 - t)), tf.sin(self._phi_0 + self._slope * t)

    def logsnr(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `log(a_t^2 / sigma_t^2)`, shaped like `t`."""
        a_t, sigma_t = self.a_sigma(t)
        return 2.0 * (tf.math.log(a_t) - tf.math.log(sigma_t))

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `logsnr(t) - logsnr(s)` without cancellation; negative for s < t."""
        a_t, _ = self.a_sigma(t)
        _, sigma_s = self.a_sigma(s)
        # tan(phi_t) / tan(phi_s) - 1
        growth = tf.sin(self._slope * (t - s)) / (a_t * sigma_s)
        return -2.0 * tf.math.log1p(growth)

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d logsnr(t) / dt = -2 phi' / (a_t sigma_t)`, negative, shaped like `t`."""
        a_t, sigma_t = self.a_sigma(t)
        return -2.0 * self._slope / (a_t * sigma_t)

    def time_at(self, log_noise_to_signal: tf.Tensor) -> tf.Tensor:
        """Returns `(phi - phi_0) / (phi_1 - phi_0)` with `tan(phi) = sigma / a`."""
        t = (tf.atan(tf.exp(log_noise_to_signal)) - self._phi_0) / self._slope
        return tf.clip_by_value(t, 0.0, 1.0)

    def importance_times(self, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Times whose log-SNR is uniform, and their density."""
        highest, lowest = self.logsnr(0.0), self.logsnr(1.0)
        t = self.time_at(-0.5 * (highest + (lowest - highest) * places))
        return t, self.logsnr_slope(t) / (lowest - highest)

    def importance_probability(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The share of the log-SNR's fall that lies between s and t."""
        return self.logsnr_difference(s, t) / self.logsnr_difference(0.0, 1.0)


@gin.register
class ConstantNoise(NoiseSchedule):
    """`a_t = 1` and the same sigma at all times: IHDM (Eq. 10), and with 0 Cold Diffusion.

    Args:
        sigma: standard deviation for images in [-1, 1]; IHDM's 0.01 for [0, 1] is 0.02 here.
    """

    keeps_scale = True

    def __init__(self, sigma: float):
        check_between("ConstantNoise.sigma", sigma, 0, _STRONGEST)
        self._sigma, self.is_zero = sigma, sigma == 0

    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ones and `sigma`, shaped like `t`."""
        return tf.ones_like(t), self._sigma * tf.ones_like(t)

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns zeros: only the blur lowers the signal-to-noise ratio."""
        return tf.zeros_like(t - s)

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns zeros, shaped like `t`."""
        return tf.zeros_like(t)


@gin.register
class GeometricNoise(NoiseSchedule):
    """`a_t = 1` and `sigma_t = sigma_min (sigma_max / sigma_min)^t`: Soft Diffusion.

    Args:
        sigma_min, sigma_max: standard deviations at t = 0 and t = 1, for images in [-1, 1].
    """

    keeps_scale = True

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 0.1):
        check_between("GeometricNoise.sigma_max", sigma_max, 0, _STRONGEST, without_low=True)
        check_between("GeometricNoise.sigma_min", sigma_min, 0, _STRONGEST, without_low=True)
        check_order("GeometricNoise", sigma_min=sigma_min, sigma_max=sigma_max)
        self._log_min, self._rate = math.log(sigma_min), math.log(sigma_max / sigma_min)

    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ones and `sigma_t`, shaped like `t`."""
        return tf.ones_like(t), tf.exp(self._log_min + self._rate * t)

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `-2 log(sigma_t / sigma_s)`; log-SNR is a straight line in t."""
        return -2.0 * self._rate * (t - s)

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns a constant, shaped like `t`."""
        return -2.0 * self._rate * tf.ones_like(t)
