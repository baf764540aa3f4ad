"""Noise with a colour: each frequency has its own share of a schedule's sigma_t, at all times."""

from __future__ import annotations

import abc
import copy
import math

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.diffusion.bases import Basis
from bdm_tf.diffusion.noise_schedules import CosineSchedule, NoiseSchedule
from bdm_tf.system.errors import UserError, check_between, check_kind


class ShapedNoise(NoiseSchedule):
    """`sigma_t w` with weights w `[H, W, C]`, or alike, of the frequencies.

    What else is asked of it, the schedule answers for w = 1: ratios of a frequency's noise at two
    times do not depend on w.

    Args:
        noise: a_t and sigma_t; None is `CosineSchedule`.
    """

    def __init__(self, noise: NoiseSchedule | None):
        self._noise = CosineSchedule() if noise is None else noise
        check_kind(f"{type(self).__name__}.noise", self._noise, NoiseSchedule)
        if isinstance(self._noise, ShapedNoise) or self._noise.blurs:
            raise UserError(
                f"{type(self).__name__}.noise = @{type(self._noise).__name__}() gives frequencies "
                "noise of their own already: give a schedule that they share, such as "
                "@CosineSchedule()"
            )
        self.is_zero, self.keeps_scale = self._noise.is_zero, self._noise.keeps_scale
        self._w: np.ndarray | None = None

    @abc.abstractmethod
    def weights(self, basis: Basis, image_shape, spectrum) -> np.ndarray | None:
        """Returns w, or None as long as it needs a spectrum that is None."""

    def for_images(self, basis, image_shape, spectrum=None):
        bound = copy.copy(self)
        bound._noise = self._noise.for_images(basis, image_shape, spectrum)
        w = self.weights(basis, image_shape, spectrum)
        bound._w = None if w is None else np.float32(w)
        return bound

    def a_sigma(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `a_t` `[B, 1, 1, 1]`, shaped like t, and `sigma_t w` `[B, H, W, C]`, or alike."""
        if self._w is None:
            raise UserError(
                f"{type(self).__name__} needs the spectrum of the training images (spectrum.npz in "
                "the workdir), which the training command measures; in Python, give it to "
                "BlurringProcess.use_spectrum"
            )
        a_t, sigma_t = self._noise.a_sigma(t)
        return a_t, sigma_t * self._w

    def logsnr_difference(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """That of the schedule."""
        return self._noise.logsnr_difference(s, t)

    def logsnr_slope(self, t: tf.Tensor) -> tf.Tensor:
        """That of the schedule."""
        return self._noise.logsnr_slope(t)

    def log_noise_to_signal(self, t: tf.Tensor) -> tf.Tensor:
        """That of the schedule."""
        return self._noise.log_noise_to_signal(t)

    def time_at(self, log_noise_to_signal: tf.Tensor) -> tf.Tensor:
        """That of the schedule."""
        return self._noise.time_at(log_noise_to_signal)

    def importance_times(self, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Those of the schedule."""
        return self._noise.importance_times(places)

    def importance_probability(self, s: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
        """That of the schedule."""
        return self._noise.importance_probability(s, t)


@gin.register
class BlockNoise(ShapedNoise):
    """Besides white noise, noise of `scale sigma_t` that all pixels of a block share.

    Relay Diffusion (Teng et al., 2024), whose blocks overlap; here they are those of the basis,
    such as a `PatchDCT`, whose mean is the coefficient of frequency 0: of n pixels, it has `w^2 =
    1 + n scale^2`, all others have w = 1.

    Args:
        noise: a_t and sigma_t; None is `CosineSchedule`.
        scale: from 0 to 10.
    """

    def __init__(self, noise: NoiseSchedule | None = None, scale: float = 0.15):
        super().__init__(noise)
        check_between("BlockNoise.scale", scale, 0, 10)
        self._scale = scale

    def weights(self, basis, image_shape, spectrum):
        is_mean = _frequencies_squared(basis, image_shape) == 0
        if not is_mean.any():
            raise UserError(
                f"BlockNoise needs a basis with the means of blocks, which {type(basis).__name__} "
                "has not: give BlurringProcess.basis = @PatchDCT()"
            )
        pixels = is_mean.size / np.count_nonzero(is_mean)
        return np.sqrt(1.0 + pixels * self._scale**2 * is_mean)


@gin.register
class PowerLawNoise(ShapedNoise):
    """`w = (r + offset)^exponent` for the frequency r: Scimeca et al. (2025), there by Fourier.

    r is in periods per pixel, 0 to 0.5 along an axis. A negative exponent gives low frequencies
    more noise, 0 is white.

    Args:
        noise: a_t and sigma_t; None is `CosineSchedule`.
        exponent: alpha, from -4 to 4; theirs are from -0.06 to 0.06.
        offset: epsilon, above 0, at most 1, which keeps the weight of frequency 0 finite.
    """

    def __init__(
        self,
        noise: NoiseSchedule | None = None,
        exponent: float = -0.02,
        offset: float = 1e-3,
    ):
        super().__init__(noise)
        check_between("PowerLawNoise.exponent", exponent, -4, 4)
        check_between("PowerLawNoise.offset", offset, 1e-6, 1)
        self._exponent, self._offset = exponent, offset

    def weights(self, basis, image_shape, spectrum):
        r = np.sqrt(_frequencies_squared(basis, image_shape)) / (2.0 * math.pi)
        return (r + self._offset) ** self._exponent


@gin.register
class EqualSNRNoise(ShapedNoise):
    """Noise in proportion to the images' own: all frequencies have the same signal-to-noise ratio.

    With C the variances of the training images' coefficients and C_mean their mean, `w^2 = C /
    C_mean`, and the ratio is `C_mean a_t^2 / sigma_t^2`, the mean of what white noise gives. It is
    EqualSNR of Falck et al. (2025), there by Fourier, but for the scale of z_t, which says nothing.

    Args:
        noise: a_t and sigma_t; None is `CosineSchedule`.
        least: w^2 of a coefficient that hardly varies, above 0, at most 1.
    """

    needs_spectrum = True

    def __init__(self, noise: NoiseSchedule | None = None, least: float = 1e-4):
        super().__init__(noise)
        check_between("EqualSNRNoise.least", least, 1e-8, 1)
        self._least = least

    def weights(self, basis, image_shape, spectrum):
        if spectrum is None:
            return None
        variance = np.float64(spectrum.variance)
        if not variance.any():
            raise UserError(
                "EqualSNRNoise goes by how the training images vary, but they are all the same"
            )
        return np.sqrt(np.maximum(variance / variance.mean(), self._least))


def _frequencies_squared(basis: Basis, image_shape) -> np.ndarray:
    """lambda, float64 `[H, W, 1]`."""
    rows, columns = basis.frequencies(*image_shape[:2])
    return rows[:, None, None] ** 2 + columns[None, :, None] ** 2
