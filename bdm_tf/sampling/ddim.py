"""Deterministic sampling (DDIM): the noise estimate is kept from step to step."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from bdm_tf.sampling.noise import PRIOR, checked_num_steps, image_seeds, normal


@gin.register
class DDIMSampler:
    """`u_s = alpha_s u_x_hat + sigma_s u_eps_hat` per frequency; random only in z_1.

    The blurring counterpart of Song et al., "Denoising Diffusion Implicit Models". The last step
    returns u_x_hat. Nothing forgets the first steps' errors here, and `1 / alpha_t` magnifies them
    where the blur is strong, so that single images diverge with a network that is not
    perfect, unless the denoiser clips.
    """

    def __call__(
        self, denoiser, *, shape: Sequence[int], seed: tf.Tensor, num_steps, first=0
    ) -> tf.Tensor:
        """Draws images `first ... first + n - 1` of a seed; see `AncestralSampler`."""
        count, *image_shape = shape
        num_steps = checked_num_steps(num_steps)
        process, basis = denoiser.process, denoiser.process.basis

        def step(k, z_t):
            t, s = (tf.cast(v, tf.float32) / tf.cast(num_steps, tf.float32) for v in (k, k - 1))
            u_eps_hat, u_x_hat = denoiser(z_t, tf.fill([count], t))
            alpha_s, sigma_s = process.alpha_sigma([s])
            u_s = tf.where(k == 1, u_x_hat, alpha_s * u_x_hat + sigma_s * u_eps_hat)
            return k - 1, basis.to_pixel(u_s)

        z = normal(image_seeds(seed, first, count), PRIOR, image_shape)
        _, x = tf.while_loop(lambda k, _: k > 0, step, [num_steps, tf.ensure_shape(z, shape)])
        return x
