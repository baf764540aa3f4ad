"""How fast the frequencies fade: the scalings d_t of heat dissipation.

As in `noise_schedules.py`, differences between two times are given without cancellation.
"""

from __future__ import annotations

import abc
import math

import gin
import tensorflow as tf

from bdm_tf.system.errors import UserError, check_between, check_counts, check_order, is_whole

_WIDEST = 1e6  # in pixels
_MOST = 10**6  # steps


class Dissipation(abc.ABC):
    """`d_t = (1 - d_min) exp(-lambda tau_t) + d_min` for some dissipation time tau_t (Eq. 26).

    Times are float32 in [0, 1]; they and `frequencies_squared` broadcast.

    Attributes:
        num_steps: K, where blur was defined at the times k / K alone; in between, it is
            interpolated. None for a schedule in continuous time.

    Args:
        min_scale: d_min, the value that no frequency is damped below; in [0, 1).
    """

    num_steps: int | None = None

    def __init__(self, min_scale: float):
        self._check("min_scale", min_scale, 0, 1, without_high=True)
        self._min_scale = min_scale

    def _check(self, name: str, value, low: float, high: float, **ends: bool) -> None:
        check_between(f"{type(self).__name__}.{name}", value, low, high, **ends)

    def check_noise(self, noise) -> None:
        """Raises a `UserError` if this blur does not go with a process's `NoiseSchedule`."""
        return

    @abc.abstractmethod
    def dissipation_time(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t = sigma_B,t^2 / 2` in square pixels, shaped like `t`."""

    @abc.abstractmethod
    def elapsed(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t - tau_s` without cancellation; never negative for s < t."""

    @abc.abstractmethod
    def dissipation_time_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d tau_t / dt`, never negative, shaped like `t`."""

    def sigma_blur(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `sigma_B,t`, the standard deviation of the Gaussian blur in pixels."""
        return tf.sqrt(2.0 * self.dissipation_time(t))

    def frequency_scaling(self, t: tf.Tensor, frequencies_squared: tf.Tensor) -> tf.Tensor:
        """Returns `d_t` for `lambda` = `frequencies_squared`."""
        exponent = -frequencies_squared * self.dissipation_time(t)
        # Not (1 - m) e + m: this form is exactly 1 where nothing is blurred.
        return tf.exp(exponent) - self._min_scale * tf.math.expm1(exponent)

    def log_scaling_difference(
        self, s: tf.Tensor, t: tf.Tensor, frequencies_squared: tf.Tensor
    ) -> tf.Tensor:
        """Returns `log d_t - log d_s` without cancellation; negative or 0 for s < t."""
        exponent = -frequencies_squared * self.elapsed(s, t)
        if self._min_scale == 0:  # d_s itself may underflow
            return exponent
        decay = tf.exp(-frequencies_squared * self.dissipation_time(s))
        d_s = self.frequency_scaling(s, frequencies_squared)
        change = (1.0 - self._min_scale) * decay * tf.math.expm1(exponent) / d_s
        ratio = self.frequency_scaling(t, frequencies_squared) / d_s
        # 1 + change loses digits where d_t is much smaller than d_s; their ratio does not.
        return tf.where(change > -0.5, tf.math.log1p(change), tf.math.log(ratio))

    def log_scaling_slope(self, t: tf.Tensor, frequencies_squared: tf.Tensor) -> tf.Tensor:
        """Returns `d log d_t / dt`, never positive."""
        slope = -frequencies_squared * self.dissipation_time_slope(t)
        if self._min_scale == 0:
            return slope
        decay = tf.exp(-frequencies_squared * self.dissipation_time(t))
        scaling = self.frequency_scaling(t, frequencies_squared)
        return (1.0 - self._min_scale) * slope * decay / scaling


@gin.register
class BlurSchedule(Dissipation):
    """The paper's: `sigma_B,t = sigma_blur_max sin(t pi/2)^2` (Eq. 25).

    Args:
        sigma_blur_max: standard deviation of the Gaussian blur at t = 1, in pixels. 0 is no blur:
            `d_t` is then exactly 1 and the process is denoising diffusion.
        min_scale: d_min, the value that no frequency is damped below; in [0, 1).
        power: 2 for Eq. 25, 1 for the faster `sigma_blur_max sin(t pi/2)` of Table 4.
    """

    def __init__(self, sigma_blur_max: float = 20.0, min_scale: float = 0.001, power: int = 2):
        super().__init__(min_scale)
        self._check("sigma_blur_max", sigma_blur_max, 0, _WIDEST)
        if not is_whole(power) or power not in (1, 2):
            raise UserError(f"BlurSchedule.{power=} must be 1 (sin) or 2 (sin^2)")
        self._sigma_blur_max = sigma_blur_max
        self._power = power

    def dissipation_time(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t = sigma_B,t^2 / 2`, shaped like `t`."""
        return 0.5 * (self._sigma_blur_max * tf.sin(t * (math.pi / 2)) ** self._power) ** 2

    def elapsed(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t - tau_s`, by `sin^2 a - sin^2 b = sin(a - b) sin(a + b)`."""
        # sin(pi - x) for sin(x): sines near pi lose their digits.
        both = tf.minimum(t + s, (1.0 - t) + (1.0 - s))
        difference = tf.sin((t - s) * (math.pi / 2)) * tf.sin(both * (math.pi / 2))
        if self._power == 2:
            difference *= tf.sin(t * (math.pi / 2)) ** 2 + tf.sin(s * (math.pi / 2)) ** 2
        return 0.5 * self._sigma_blur_max**2 * difference

    def dissipation_time_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d tau_t / dt`, shaped like `t`."""
        sine, cosine = (tf.sin(v * (math.pi / 2)) for v in (t, 1.0 - t))
        p = self._power
        return self._sigma_blur_max**2 * p * (math.pi / 2) * sine ** (2 * p - 1) * cosine


@gin.register
class LogBlur(Dissipation):
    """A blur that grows by the same factor in equal times.

    With `num_steps` it is IHDM's: 0 at t = 0, `sigma_blur_min` at t = 1/K, and from there
    geometric to `sigma_blur_max` at t = 1; between 0 and 1/K the standard deviation is a straight
    line. Without, it is geometric from t = 0 on, as in Soft Diffusion.

    Args:
        sigma_blur_min, sigma_blur_max: standard deviations of the Gaussian blur, in pixels.
        num_steps: K, at least 2, or None.
        min_scale: d_min, which IHDM does not have; in [0, 1).
    """

    def __init__(
        self,
        sigma_blur_min: float = 0.5,
        sigma_blur_max: float = 24.0,
        num_steps: int | None = None,
        min_scale: float = 0.0,
    ):
        super().__init__(min_scale)
        self._check("sigma_blur_max", sigma_blur_max, 0, _WIDEST, without_low=True)
        self._check("sigma_blur_min", sigma_blur_min, 0, _WIDEST, without_low=True)
        check_order("LogBlur", sigma_blur_min=sigma_blur_min, sigma_blur_max=sigma_blur_max)
        if num_steps is not None:
            check_counts("LogBlur", 2, _MOST, num_steps=num_steps)
        self.num_steps = num_steps
        self._start = 1.0 / num_steps if num_steps else 0.0
        self._tau_start = 0.5 * sigma_blur_min**2
        # of tau, which grows twice as fast as the standard deviation
        self._rate = 2.0 * math.log(sigma_blur_max / sigma_blur_min) / (1.0 - self._start)
        self._ramp = self._tau_start / self._start**2 if num_steps else 0.0  # tau = ramp t^2

    def dissipation_time(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t`, shaped like `t`."""
        grown = self._tau_start * tf.exp(self._rate * (t - self._start))
        return tf.where(t < self._start, self._ramp * t**2, grown)

    def elapsed(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t - tau_s`, of the line and of the geometric part."""
        low_s, low_t = (tf.minimum(v, self._start) for v in (s, t))
        high_s, high_t = (tf.maximum(v, self._start) for v in (s, t))
        grown = self.dissipation_time(high_s) * tf.math.expm1(self._rate * (high_t - high_s))
        return self._ramp * (low_t - low_s) * (low_t + low_s) + grown

    def dissipation_time_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d tau_t / dt`, shaped like `t`; at 1/K from the right."""
        grown = self._rate * self.dissipation_time(t)
        return tf.where(t < self._start, 2.0 * self._ramp * t, grown)


@gin.register
class CumulativeBlur(Dissipation):
    """Cold Diffusion's: K Gaussian blurs one after another, each a little wider than the last.

    Variances of Gaussian blurs add up, so after s of them `sigma_B^2 = sum_(i<s) (first +
    increment i)^2`, a cubic in s = K t. Bansal et al. blur CIFAR-10 with K = 50, 0.35 and 0.01,
    in all 4.33 pixels, by sampled kernels of 11 taps, which are a little narrower than that.

    Args:
        first: standard deviation of the first blur, in pixels.
        increment: how much wider each next one is, at most `first`.
        num_steps: K, at least 1.
        min_scale: d_min, which Cold Diffusion does not have; in [0, 1).
    """

    def __init__(
        self,
        first: float = 0.35,
        increment: float = 0.01,
        num_steps: int = 50,
        min_scale: float = 0.0,
    ):
        super().__init__(min_scale)
        self._check("first", first, 0, _WIDEST, without_low=True)
        self._check("increment", increment, 0, _WIDEST)
        if increment > first:  # the cubic may fall in between
            raise UserError(f"CumulativeBlur.{increment=} must be at most {first=}")
        check_counts("CumulativeBlur", 1, _MOST, num_steps=num_steps)
        self.num_steps = num_steps
        # tau = linear t + square t^2 + cubic t^3
        self._linear = 0.5 * num_steps * (first**2 - first * increment + increment**2 / 6)
        self._square = 0.5 * num_steps**2 * (first * increment - increment**2 / 2)
        self._cubic = 0.5 * num_steps**3 * increment**2 / 3

    def dissipation_time(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t`, shaped like `t`."""
        return t * (self._linear + t * (self._square + t * self._cubic))

    def elapsed(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t - tau_s`, with `t - s` as a factor."""
        cubic = self._cubic * (s**2 + s * t + t**2)
        return (t - s) * (self._linear + self._square * (s + t) + cubic)

    def dissipation_time_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d tau_t / dt`, shaped like `t`."""
        return self._linear + t * (2.0 * self._square + 3.0 * self._cubic * t)
