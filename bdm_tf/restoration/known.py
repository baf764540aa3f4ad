"""What is known of the image, put in place of the network's estimate.

The process is diagonal, `u_t = alpha_t u_x + sigma_t eps` for each coefficient, and so are the
steps of samplers. A coefficient of the image that is known takes the place of its estimate; then an
ancestral step is a draw of q(u_s | u_t, u_x), whatever blur the process has. With the same noise at
all frequencies that is DDRM (Kawar et al., "Denoising Diffusion Restoration Models", 2022).
"""

from __future__ import annotations

import tensorflow as tf

from bdm_tf.projections import NoProjection, Projection, in_pixels
from bdm_tf.system.errors import UserError, check_kind


class _AfterAnother(Projection):
    """A projection that comes after the model's own.

    Args:
        after: the model's own; None is `NoProjection`.
    """

    def __init__(self, after: Projection | None):
        self._after = NoProjection() if after is None else after
        check_kind(f"{type(self).__name__}.after", self._after, Projection)
        self.needs_spectrum = self._after.needs_spectrum
        self.needs_trust = self._after.needs_trust

    def check(self, spectrum):
        self._after.check(spectrum)


class Known(_AfterAnother):
    """Coefficients of the image that are known, exactly or with an error.

    With y the known value, tau^2 its variance and r_t^2 that of the image around the network's
    estimate, both are weighted by their precision:

        u = (u_x_hat / r_t^2 + y / tau^2) / (1 / r_t^2 + 1 / tau^2)
        r_t^2 = C sigma_t^2 / (alpha_t^2 C + sigma_t^2)

    which is E[u_x | u_t, y] for Gaussian images of the training images' spectrum C. Without a
    spectrum C is 1.

    Args:
        values: y, `[B, H, W, C]`, finite; of any value where nothing is known.
        variance: tau^2, `[B, H, W, C]`, at least 0: 0 where y is exact, infinite where nothing is
            known.
        after: the model's own projection, which comes first; None is `NoProjection`.

    Raises:
        UserError: the shapes differ.
    """

    def __init__(self, values: tf.Tensor, variance: tf.Tensor, after: Projection | None = None):
        super().__init__(after)
        self._values = tf.convert_to_tensor(values, tf.float32)
        self._variance = tf.convert_to_tensor(variance, tf.float32)
        if self._values.shape.rank != 4 or self._values.shape != self._variance.shape:
            raise UserError(
                "Known has values and variances of one shape [B, H, W, C], not of "
                f"{self._values.shape} and {self._variance.shape}"
            )

    def __call__(self, u_x_hat, *, process, spectrum, t):
        free = self._after(u_x_hat, process=process, spectrum=spectrum, t=t)
        alpha, sigma = process.alpha_sigma(t)
        images = 1.0 if spectrum is None else spectrum.variance
        remaining = tf.math.divide_no_nan(images * sigma**2, alpha**2 * images + sigma**2)
        weight = tf.math.divide_no_nan(remaining, remaining + self._variance)
        found = free + weight * (self._values - free)
        return tf.where(self._variance > 0, found, self._values)


class KnownPixels(_AfterAnother):
    """Pixels of the image that are known, in place of those of the estimate.

    Exact where the frequencies fade alike. Where there is blur, pixels are no coefficients, and
    this is an approximation: what is known sharpens the estimate only where it is.

    Args:
        pixels: `[B, H, W, C]` in [-1, 1].
        unknown: bool `[B, H, W, 1]`, or broadcast to it; True where the network's estimate stays.
        after: the projection that comes first; None is `NoProjection`.
    """

    def __init__(self, pixels: tf.Tensor, unknown: tf.Tensor, after: Projection | None = None):
        super().__init__(after)
        self._pixels = tf.convert_to_tensor(pixels, tf.float32)
        self._unknown = tf.convert_to_tensor(unknown, tf.bool)

    def __call__(self, u_x_hat, *, process, spectrum, t):
        free = self._after(u_x_hat, process=process, spectrum=spectrum, t=t)
        return in_pixels(process, free, lambda x: tf.where(self._unknown, x, self._pixels))
