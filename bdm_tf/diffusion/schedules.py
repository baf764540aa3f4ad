"""How fast the signal fades: the noise schedule (a_t, sigma_t) and the blur schedule d_t.

Differences between two times are given in closed form, because the denoising distribution needs
`log SNR(t) - log SNR(s)` for `t - s` as small as 1/4000, where subtracting two float32 logarithms
would lose the digits that matter.
"""

from __future__ import annotations

import math

import gin
import tensorflow as tf


@gin.register
class CosineSchedule:
    """The variance-preserving cosine schedule, truncated in log-SNR (section 4, Appendix A.1).

    With `tan(phi_t) = sigma_t / a_t` the schedule is the straight line `phi_t = phi_0 + (phi_1 -
    phi_0) t`, so `a_t = cos(phi_t)` and `sigma_t = sin(phi_t)`.

    Args:
        logsnr_min: log(a^2 / sigma^2) at t = 1.
        logsnr_max: log(a^2 / sigma^2) at t = 0; must be the larger of the two.
    """

    def __init__(self, logsnr_min: float = -10.0, logsnr_max: float = 10.0):
        if logsnr_min >= logsnr_max:
            raise ValueError(f"logsnr_min={logsnr_min} must be below logsnr_max={logsnr_max}")
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

    def time_of_logsnr(self, logsnr: tf.Tensor) -> tf.Tensor:
        """Returns the t at which `logsnr(t)` has this value, shaped like `logsnr`."""
        return (tf.atan(tf.exp(-0.5 * logsnr)) - self._phi_0) / self._slope


@gin.register
class BlurSchedule:
    """Heat dissipation: `d_t = (1 - d_min) exp(-lambda tau_t) + d_min` (Eq. 25 and 26).

    Args:
        sigma_blur_max: standard deviation of the Gaussian blur at t = 1, in pixels. 0 is no blur:
            `d_t` is then exactly 1 and the process is denoising diffusion.
        min_scale: d_min, the value that no frequency is damped below; in [0, 1).
        power: 2 for `sigma_B,t = sigma_blur_max sin(t pi/2)^2` (Eq. 25), 1 for the faster
            `sigma_blur_max sin(t pi/2)` of Table 4.
    """

    def __init__(self, sigma_blur_max: float = 20.0, min_scale: float = 0.001, power: int = 2):
        if sigma_blur_max < 0:
            raise ValueError(f"sigma_blur_max={sigma_blur_max} must not be negative")
        if not 0 <= min_scale < 1:
            raise ValueError(f"min_scale={min_scale} must lie in [0, 1)")
        if power not in (1, 2):
            raise ValueError(f"power={power} must be 1 (sin) or 2 (sin^2)")
        self._sigma_blur_max = sigma_blur_max
        self._min_scale = min_scale
        self._power = power

    def sigma_blur(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `sigma_B,t` in pixels, shaped like `t`."""
        return self._sigma_blur_max * tf.sin(t * (math.pi / 2)) ** self._power

    def dissipation_time(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t = sigma_B,t^2 / 2`, shaped like `t`."""
        return 0.5 * self.sigma_blur(t) ** 2

    def frequency_scaling(self, t: tf.Tensor, frequencies_squared: tf.Tensor) -> tf.Tensor:
        """Returns `d_t` for `lambda` = `frequencies_squared`; the two shapes broadcast."""
        exponent = -frequencies_squared * self.dissipation_time(t)
        # Not (1 - m) e + m: this form is exactly 1 where nothing is blurred.
        return tf.exp(exponent) - self._min_scale * tf.math.expm1(exponent)

    def log_scaling_difference(
        self, s: tf.Tensor, t: tf.Tensor, frequencies_squared: tf.Tensor
    ) -> tf.Tensor:
        """Returns `log d_t - log d_s` without cancellation; negative or 0 for s < t."""
        sin2_s, sin2_t = (tf.sin(v * (math.pi / 2)) ** 2 for v in (s, t))
        difference = tf.sin((t - s) * (math.pi / 2)) * tf.sin((t + s) * (math.pi / 2))
        if self._power == 2:
            difference *= sin2_t + sin2_s
        elapsed = 0.5 * self._sigma_blur_max**2 * difference  # tau_t - tau_s
        decay = tf.exp(-frequencies_squared * self.dissipation_time(s))
        change = (1.0 - self._min_scale) * decay * tf.math.expm1(-frequencies_squared * elapsed)
        if self._min_scale == 0:  # d_s itself may underflow
            return -frequencies_squared * elapsed
        return tf.math.log1p(change / self.frequency_scaling(s, frequencies_squared))

    def log_scaling_slope(self, t: tf.Tensor, frequencies_squared: tf.Tensor) -> tf.Tensor:
        """Returns `d log d_t / dt`, never positive; the two shapes broadcast."""
        sine, cosine = tf.sin(t * (math.pi / 2)), tf.cos(t * (math.pi / 2))
        p = self._power
        tau_slope = self._sigma_blur_max**2 * p * (math.pi / 2) * sine ** (2 * p - 1) * cosine
        slope = -frequencies_squared * tau_slope
        if self._min_scale == 0:
            return slope
        decay = tf.exp(-frequencies_squared * self.dissipation_time(t))
        scaling = self.frequency_scaling(t, frequencies_squared)
        return (1.0 - self._min_scale) * slope * decay / scaling
