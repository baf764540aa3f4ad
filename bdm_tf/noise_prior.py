"""Where sampling starts if the process ends in noise of another scale than 1."""

from __future__ import annotations

import math

import gin
import tensorflow as tf

from bdm_tf.noise import PRIOR, normal
from bdm_tf.priors import Prior
from bdm_tf.system.errors import UserError

_HIDES = 4.0  # sigma_1 / alpha_1, a log SNR of -2.8


@gin.register
class NoisePrior(Prior):
    """N(0, sigma_1^2) of each coefficient: what is left of any image, if sigma_1 hides it.

    Where `a_t = 1` that is EDM's N(0, sigma_max^2), and where the noise of frequencies differs,
    noise of that shape.
    """

    has_divergence = True

    def check(self, process):
        with tf.init_scope():
            if process.needs_spectrum:  # its noise is not known yet, that of the schedule is
                hidden = process.log_noise_to_signal([1.0]) >= math.log(_HIDES)
            else:
                alpha, sigma = process.alpha_sigma([1.0])
                hidden = sigma >= _HIDES * alpha
        if not tf.reduce_all(hidden):
            raise UserError(
                "NoisePrior begins in noise alone, and at t = 1 this process still shows some "
                f"frequencies of an image (sigma_1 < {_HIDES:.0f} alpha_1): give Model.prior = "
                "@GaussianPrior() or @BlurredImages(), which are fitted to images, or more noise"
            )

    def draw(self, process, seeds, image_shape):
        _, sigma = process.alpha_sigma([1.0])
        return process.basis.to_pixel(sigma * normal(seeds, PRIOR, image_shape))

    def divergence(self, process, u_x):
        alpha, sigma = process.alpha_sigma([1.0])
        return 0.5 * tf.reduce_sum(tf.square(alpha * u_x / sigma), axis=[1, 2, 3])
