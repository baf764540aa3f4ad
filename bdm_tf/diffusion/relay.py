"""What Relay Diffusion (Teng et al., 2024) corrupts by: patches, and noise of log-normal size."""

from __future__ import annotations

import math

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.diffusion.bases import DCT, Basis
from bdm_tf.diffusion.noise_schedules import NoiseSchedule
from bdm_tf.system.errors import UserError, check_between, check_counts


@gin.register
class PatchDCT(Basis):
    """The cosine transform of each patch of `size x size` pixels, coefficients in its place.

    Frequencies are `pi i / size`: blur by them runs within a patch, whose mean it keeps.

    Args:
        size: of a patch, at least 1; H and W must be multiples of it.
    """

    def __init__(self, size: int = 4):
        check_counts("PatchDCT", 1, 2**16, size=size)
        self.size = size

    def matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        if height % self.size or width % self.size:
            raise UserError(
                f"PatchDCT.size={self.size} needs sides that are multiples of it, not "
                f"{height}x{width}"
            )
        patch, _ = DCT().matrices(self.size, self.size)
        rows, columns = (np.kron(np.eye(n // self.size), patch) for n in (height, width))
        return rows, columns

    def frequencies(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of a patch, once for each."""
        of_patch = np.pi * np.arange(self.size) / self.size
        rows, columns = (np.tile(of_patch, n // self.size) for n in (height, width))
        return rows, columns


@gin.register
class LogNormalNoise(NoiseSchedule):
    """`a_t = 1`, and `ln sigma_t` is normal, cut off at a quantile, for t uniform in [0, 1].

        sigma_t = exp(log_mean + log_std z_t),   z_t = Phi^-1(share max(t, t_min))

    so that uniform times are EDM's training times, without the strongest noise. Below t_min =
    `share Phi((ln sigma_min - log_mean) / log_std)`, as in the published code, sigma_t is constant.

    Args:
        log_mean: P_mean, from -20 to 20.
        log_std: P_std, from 0.1 to 20.
        share: p, the quantile that t = 1 is, in (0, 1).
        sigma_min: about the least sigma_t, above 0.
    """

    keeps_scale = True

    def __init__(
        self,
        log_mean: float = -1.2,
        log_std: float = 1.2,
        share: float = 0.93,
        sigma_min: float = 0.0075,
    ):
        check_between("LogNormalNoise.log_mean", log_mean, -20, 20)
        check_between("LogNormalNoise.log_std", log_std, 0.1, 20)
        check_between("LogNormalNoise.share", share, 0, 1, without_low=True, without_high=True)
        check_between("LogNormalNoise.sigma_min", sigma_min, 0, 1e6, without_low=True)
        self._mean, self._std, self._share = log_mean, log_std, share
        z = (math.log(sigma_min) - log_mean) / log_std
        below = 0.5 * math.erfc(-z / math.sqrt(2.0))
        if not 1e-30 < below < share:
            raise UserError(
                f"LogNormalNoise.{sigma_min=} is no noise of a schedule with {log_mean=}, "
                f"{log_std=} and {share=}: give one nearer to exp(log_mean) = "
                f"{math.exp(log_mean):.3g}"
            )
        self._t_min = share * below

    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ones and `sigma_t`, shaped like `t`."""
        log_sigma = self._mean + self._std * self._quantile(t)
        return tf.ones_like(t), tf.cast(tf.exp(log_sigma), tf.float32)

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """Returns `-2 log(sigma_t / sigma_s)`, subtracted in float64."""
        grown = self._quantile(t) - self._quantile(s)
        return tf.cast(-2.0 * self._std * grown, tf.float32)

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """Returns `-2 log_std share / phi(z_t)`, phi the normal density; 0 below t_min."""
        z = tf.cast(self._quantile(t), tf.float32)
        slope = -2.0 * self._std * self._share * math.sqrt(2.0 * math.pi) * tf.exp(0.5 * z**2)
        return tf.where(t < self._t_min, 0.0, slope)

    def time_at(self, log_noise_to_signal: tf.Tensor) -> tf.Tensor:
        """Returns `Phi((ln sigma - log_mean) / log_std) / share`, within [0, 1]."""
        z = (log_noise_to_signal - self._mean) / self._std
        t = 0.5 * tf.math.erfc(-z / math.sqrt(2.0)) / self._share
        return tf.clip_by_value(t, 0.0, 1.0)

    def _quantile(self, t: tf.Tensor) -> tf.Tensor:
        """z_t in float64, in which differences of near times keep their digits."""
        return tf.math.ndtri(self._share * tf.maximum(tf.cast(t, tf.float64), self._t_min))
