"""Deterministic sampling (DDIM): the noise estimate is kept from step to step."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.sampling.sampler import Sampler, needs_noise


@gin.register
class DDIMSampler(Sampler):
    """`u_s = alpha_s u_x_hat + sigma_s u_eps_hat` per frequency; random only in z_1.

    The blurring counterpart of Song et al., "Denoising Diffusion Implicit Models". The last step
    returns u_x_hat. Nothing forgets the first steps' errors here, and `1 / alpha_t` magnifies them
    where the blur is strong, so that single images diverge with a network that is not
    perfect, unless the denoiser clips.
    """

    def step(self, denoiser, z_t, *, t, s, noise, is_last):
        u_eps_hat, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        alpha_s, sigma_s = denoiser.process.alpha_sigma([s])
        return tf.where(is_last, u_x_hat, alpha_s * u_x_hat + sigma_s * u_eps_hat)

    def check(self, denoiser, num_steps=None, name="num_steps"):
        super().check(denoiser, num_steps, name)
        needs_noise(self, denoiser)
