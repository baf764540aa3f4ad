"""Progressive deblurring (Lee et al., 2022): each frequency turns to noise at its own speed."""

from __future__ import annotations

import copy

import gin
import tensorflow as tf

from bdm_tf.diffusion.noise_schedules import NoiseSchedule
from bdm_tf.system.errors import check_between, check_counts, check_order


@gin.register
class ProgressiveNoise(NoiseSchedule):
    """`a_t^2 = exp(-g_t)` and `sigma_t^2 = 1 - a_t^2`, with a `g_t` for each frequency.

    With N betas from beta_min to beta_max in a straight line, and N blurs whose standard deviations
    grow as the square of their number to sigma_last,

        g_t = sum beta + lambda sum sigma^2
        sum beta = (1 + (N - 1) t) (beta_min + (beta_max - beta_min) t / 2)
        sum sigma^2 = N sigma_last^2 t^5 / 5

    so that noise takes the place of all that fades, high frequencies first. At `t = (i - 1) / (N -
    1)` it is the published process after i steps, with `exp(-sum beta)` for their `prod (1 - beta)`
    and an integral for the sum of blurs. It blurs by itself: give `BlurringProcess.blur` none. A
    schedule that no process has told its frequencies is that of frequency 0.

    Args:
        beta_min, beta_max: the first and the last beta, above 0, below 1.
        sigma_last: the last blur's standard deviation, in pixels; 0 is denoising diffusion.
        num_betas: N, at least 2.
    """

    blurs = True
    _frequencies_squared: float | tf.Tensor = 0.0

    def __init__(
        self,
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
        sigma_last: float = 0.15,
        num_betas: int = 1000,
    ):
        ends = {"without_low": True, "without_high": True}
        check_between("ProgressiveNoise.beta_max", beta_max, 0, 1, **ends)
        check_between("ProgressiveNoise.beta_min", beta_min, 0, 1, **ends)
        check_order("ProgressiveNoise", beta_min=beta_min, beta_max=beta_max)
        check_between("ProgressiveNoise.sigma_last", sigma_last, 0, 1e3)
        check_counts("ProgressiveNoise", 2, 10**6, num_betas=num_betas)
        half, gaps = 0.5 * (beta_max - beta_min), num_betas - 1
        # sum beta = first + linear t + square t^2
        self._first, self._linear, self._square = beta_min, gaps * beta_min + half, gaps * half
        self._blur = num_betas * sigma_last**2 / 5

    def for_images(self, basis, image_shape, spectrum=None):
        bound = copy.copy(self)
        with tf.init_scope():
            bound._frequencies_squared = basis.frequencies_squared(*image_shape[:2])
        return bound

    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `a_t` and `sigma_t`, `[B, H, W, 1]`."""
        g_t = self._first + self._grown(0.0, t)
        return tf.exp(-0.5 * g_t), tf.sqrt(-tf.math.expm1(-g_t))

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """`-(g_t - g_s) - log(sigma_t^2 / sigma_s^2)`, both parts without cancellation."""
        a_s, sigma_s = self.a_sigma(s)
        grown = self._grown(s, t)
        return -grown - tf.math.log1p(-tf.math.expm1(-grown) * (a_s / sigma_s) ** 2)

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `-(dg_t / dt) / sigma_t^2`."""
        _, sigma_t = self.a_sigma(t)
        of_betas = self._linear + 2.0 * self._square * t
        slope = of_betas + self._frequencies_squared * self._blur * 5.0 * t**4
        return -slope / sigma_t**2

    def log_noise_to_signal(self, t: tf.Tensor) -> tf.Tensor:
        """That of frequency 0, which is never blurred."""
        sum_beta = self._first + t * (self._linear + t * self._square)
        return 0.5 * (sum_beta + tf.math.log(-tf.math.expm1(-sum_beta)))

    def importance_times(self, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Times at which frequency 0 has a log-SNR that is uniform, and their density."""
        low, high = self.log_noise_to_signal(0.0), self.log_noise_to_signal(1.0)
        t = self.time_at(low + (high - low) * places)
        return t, -0.5 * self._unblurred().logsnr_slope(t) / (high - low)

    def importance_probability(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """The share of the fall of frequency 0's log-SNR that lies between s and t."""
        unblurred = self._unblurred()
        return unblurred.logsnr_difference(s, t) / unblurred.logsnr_difference(0.0, 1.0)

    def _unblurred(self) -> ProgressiveNoise:
        found = copy.copy(self)
        found._frequencies_squared = 0.0
        return found

    def _grown(self, s, t: tf.Tensor) -> tf.Tensor:
        """`g_t - g_s`, with `t - s` as a factor."""
        of_blur = t**4 + t * s * (t * t + t * s + s * s) + s**4
        of_betas = self._linear + self._square * (s + t)
        return (t - s) * (of_betas + self._frequencies_squared * self._blur * of_blur)
