"""Where sampling starts if the process ends in noise of another scale than 1."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.noise import PRIOR, normal
from bdm_tf.priors import Prior


@gin.register
class NoisePrior(Prior):
    """N(0, sigma_1^2) of each coefficient: what is left of any image, if sigma_1 hides it.

    Where `a_t = 1` that is EDM's N(0, sigma_max^2), and where the noise of frequencies differs,
    noise of that shape.
    """

    has_divergence = True

    def draw(self, process, seeds, image_shape):
        _, sigma = process.alpha_sigma([1.0])
        return process.basis.to_pixel(sigma * normal(seeds, PRIOR, image_shape))

    def divergence(self, process, u_x):
        alpha, sigma = process.alpha_sigma([1.0])
        return 0.5 * tf.reduce_sum(tf.square(alpha * u_x / sigma), axis=[1, 2, 3])
