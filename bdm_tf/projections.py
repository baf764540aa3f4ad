"""Bounds on the estimate of the image, between network and sampler.

Where noise is predicted, `u_x_hat = (u_t - sigma_t u_eps_hat) / alpha_t` magnifies the network's
error by `sigma_t / alpha_t`, up to 10^5 where blur damps a frequency. A projection moves the
estimate to where images are. Samplers know nothing of it.
"""

from __future__ import annotations

import abc

import gin
import tensorflow as tf

from bdm_tf.spectrum import Spectrum, needed
from bdm_tf.system.errors import UserError, check_between


class Projection(abc.ABC):
    """Moves estimates of the image; what lies within its bounds stays as it is, to the bit.

    Attributes:
        needs_spectrum: whether it needs the training images' `Spectrum`.
        needs_trust: whether that must have the network's measured `Trust`.
    """

    needs_spectrum = False
    needs_trust = False

    def check(self, spectrum: Spectrum | None) -> None:
        """Raises a `UserError` if what it needs was not measured."""
        if self.needs_spectrum:
            needed(spectrum, type(self).__name__)

    @abc.abstractmethod
    def __call__(
        self, u_x_hat: tf.Tensor, *, process, spectrum: Spectrum | None, t: tf.Tensor
    ) -> tf.Tensor:
        """Returns the estimate's coefficients within bounds, `[B, H, W, C]`.

        Args:
            u_x_hat: coefficients of the estimate, `[B, H, W, C]`.
            process: the diffusion process.
            spectrum: of the training images' coefficients, or None if it is not known.
            t: times `[B]`.
        """


@gin.register
class NoProjection(Projection):
    """Takes the estimate as it is: Appendix A.1."""

    def __call__(self, u_x_hat, *, process, spectrum, t):
        return u_x_hat


@gin.register
class PixelClip(Projection):
    """Keeps each pixel within [-1, 1], as DDPM's code does.

    The paper warns of it for blurred processes (A.1): what the clip cuts off one pixel is noise in
    all frequencies. Measured: docs/few_steps.md.
    """

    def __call__(self, u_x_hat, *, process, spectrum, t):
        return in_pixels(process, u_x_hat, lambda x: tf.clip_by_value(x, -1.0, 1.0))


@gin.register
class DynamicThreshold(Projection):
    """Clips pixels at a quantile of each image's own absolute values and scales them by it.

    With s the quantile, at least 1, pixels become `clip(x, -s, s) / s`: Saharia et al.,
    "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding" (2022).

    Args:
        quantile: in (0, 1].
    """

    def __init__(self, quantile: float = 0.995):
        check_between("DynamicThreshold.quantile", quantile, 0, 1, without_low=True)
        self._quantile = quantile

    def __call__(self, u_x_hat, *, process, spectrum, t):
        def threshold(x):
            size = x.shape[1] * x.shape[2] * x.shape[3]
            values = tf.sort(tf.reshape(tf.abs(x), [-1, size]), axis=1)
            place = self._quantile * (size - 1)
            low, share = int(place), place - int(place)
            high = min(low + 1, size - 1)
            quantile = values[:, low] + share * (values[:, high] - values[:, low])
            bound = tf.maximum(quantile, 1.0)[:, None, None, None]
            return tf.clip_by_value(x, -bound, bound) / bound

        return in_pixels(process, u_x_hat, threshold)


@gin.register
class SpectralClip(Projection):
    """Keeps each coefficient within `mean +- k standard deviations` of the training images' own.

    Where a coefficient never varies, it is set to its mean.

    Args:
        num_deviations: k, above 0.
    """

    needs_spectrum = True

    def __init__(self, num_deviations: float = 2.5):
        check_between("SpectralClip.num_deviations", num_deviations, 0, without_low=True)
        self._num_deviations = num_deviations

    def __call__(self, u_x_hat, *, process, spectrum, t):
        spectrum = needed(spectrum, "SpectralClip")
        reach = self._num_deviations * spectrum.deviation
        return tf.clip_by_value(u_x_hat, spectrum.mean - reach, spectrum.mean + reach)


@gin.register
class SpectralShrink(Projection):
    """Moves each coefficient towards the training images' mean, by how little it can be trusted.

    `m + slope (u_x_hat - m)` with the slope in [0, 1] that was measured for this frequency and time
    when training ended, see `bdm_tf/trust.py`. A network that is as good as it can be has slopes
    of 1 and is not touched.
    """

    needs_spectrum = True
    needs_trust = True

    def check(self, spectrum):
        if needed(spectrum, "SpectralShrink").trust is None:
            raise UserError(
                "SpectralShrink needs what these weights' estimates are worth (trust.npz in the "
                "workdir), which is measured at the end of training: run the training command "
                'again with --gin_param="sample.projection = @SpectralShrink()"; it is of the last '
                "step's weights alone"
            )

    def __call__(self, u_x_hat, *, process, spectrum, t):
        self.check(spectrum)
        slope = spectrum.trust.at(t)
        shrunk = spectrum.mean + slope * (u_x_hat - spectrum.mean)
        return tf.where(slope == 1.0, u_x_hat, shrunk)


def in_pixels(process, u_x: tf.Tensor, move) -> tf.Tensor:
    """Coefficients whose pixels were moved; where none was, they are the same to the bit."""
    x = process.basis.to_pixel(u_x)
    return u_x + process.basis.to_frequency(move(x) - x)
