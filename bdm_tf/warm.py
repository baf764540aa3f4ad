"""What a network of two heads predicts: the blurred image, and what blur took from it."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.parametrisations import PredictEDM


@gin.register
class PredictBlurAndRest(PredictEDM):
    """Two heads, f and g: `alpha_t u_x` by EDM's preconditioning, and `(1 - alpha_t) u_x`.

    Warm Diffusion's (Hsueh et al., 2025). Its preconditioning and weights are not public; these are
    ours:

        u_blur_hat = c_skip u_t + c_out u_f    u_rest_hat = c_out u_g    u_x_hat = their sum
        u_eps_hat = (u_t - u_blur_hat) / sigma_t

    with EDM's c_skip, c_out and c_in, so that EDM's weight is that of both heads. What blur did not
    touch has no rest. Without blur it is `PredictEDM`, whatever g says. The network predicts
    `[B, H, W, 2 C]`, f before g.

    Args:
        sigma_data: sigma_d, the standard deviation of the images' pixels, above 0.
    """

    num_heads = 2

    def target(self, process, *, x, eps, z_t, t, spectrum=None):
        alpha, _ = process.alpha_sigma(t)
        c_skip, c_out, _ = self._scales(process, t)
        blurred = process.basis.to_pixel(alpha * process.basis.to_frequency(x))
        return tf.concat([(blurred - c_skip * z_t) / c_out, (x - blurred) / c_out], axis=-1)

    def coefficients(self, process, *, u_f, u_t, t, spectrum=None):
        alpha, sigma = process.alpha_sigma(t)
        c_skip, c_out, _ = self._scales(process, t)
        u_f, u_g = tf.split(u_f, 2, axis=-1)
        u_blur = c_skip * u_t + c_out * u_f
        u_rest = tf.where(alpha < 1.0, c_out * u_g, 0.0)
        return (u_t - u_blur) / sigma, u_blur + u_rest
