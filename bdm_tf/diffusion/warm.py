"""Warm Diffusion's blur (Hsueh et al., 2025): as wide as the noise is strong."""

from __future__ import annotations

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.diffusion.blur_schedules import Dissipation
from bdm_tf.diffusion.noise_schedules import NoiseSchedule
from bdm_tf.diffusion.shaped_noise import ShapedNoise
from bdm_tf.system.errors import UserError, check_kind


@gin.register
class BlurByNoise(Dissipation):
    """`sigma_B,t = ratio sigma_t`: the blur-to-noise ratio is the same at all times.

    Args:
        noise: sigma_t, as a rule that of the process; with a_t = 1.
        ratio: pixels of blur for each unit of noise, from 0 to 1000; 0 is no blur.
        min_scale: d_min, which Warm Diffusion does not have; in [0, 1).
    """

    def __init__(self, noise: NoiseSchedule, ratio: float = 0.5, min_scale: float = 0.0):
        super().__init__(min_scale)
        check_kind("BlurByNoise.noise", noise, NoiseSchedule)
        if isinstance(noise, ShapedNoise) or not noise.keeps_scale:
            raise UserError(
                f"BlurByNoise.noise = @{type(noise).__name__}() must be one with a_t = 1 and a "
                "sigma_t that all frequencies share, such as @GeometricNoise()"
            )
        self._check("ratio", ratio, 0, 1e3)
        self._noise, self._ratio = noise, ratio

    def check_noise(self, noise):
        if isinstance(noise, ShapedNoise):  # of which the frequencies have their shares
            return
        t = tf.constant([0.0, 0.5, 1.0])
        with tf.init_scope():
            ratios = tf.exp(noise.log_noise_to_signal(t) - self._noise.log_noise_to_signal(t))
        if not np.allclose(ratios, 1.0, rtol=1e-3):
            raise UserError(
                f"BlurByNoise.noise = @{type(self._noise).__name__}() is not the noise of the "
                f"process, @{type(noise).__name__}(): give BlurringProcess.noise and "
                "BlurByNoise.noise the same"
            )

    def dissipation_time(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t`, shaped like `t`."""
        _, sigma_t = self._noise.a_sigma(t)
        return 0.5 * (self._ratio * sigma_t) ** 2

    def elapsed(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `tau_t - tau_s = tau_s (sigma_t^2 / sigma_s^2 - 1)`."""
        return self.dissipation_time(s) * tf.math.expm1(-self._noise.logsnr_difference(s, t))

    def dissipation_time_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `d tau_t / dt`, shaped like `t`."""
        return -self.dissipation_time(t) * self._noise.logsnr_slope(t)
