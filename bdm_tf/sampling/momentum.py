"""Sampling where there is little noise or none: Cold and Soft Diffusion."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.sampling.sampler import Sampler
from bdm_tf.system.errors import UserError


class _OfLearntSteps(Sampler):
    """Where the blur is one of K steps, takes K steps, or fewer of the same times."""

    def allowed_steps(self, process):
        return 1, process.num_steps


@gin.register
class NaiveSampler(_OfLearntSteps):
    """`u_s = alpha_s u_x_hat + sigma_s eta`: what is estimated is diffused again.

    Algorithm 1 of Bansal et al., "Cold Diffusion" (2022), if sigma is 0, and Soft Diffusion's
    naive sampler if not.
    """

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        _, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        alpha_s, sigma_s = denoiser.process.alpha_sigma([s])
        return alpha_s * u_x_hat + tf.where(is_last, 0.0, sigma_s) * noise, memory


@gin.register
class MomentumSampler(_OfLearntSteps):
    """Changes z_t by what the estimated image loses in blur and in noise between s and t.

        u = u_t + (1 - sigma_s^2 / sigma_t^2) (alpha_t u_x_hat - u_t)
                + sqrt(sigma_t^2 - sigma_s^2) eta
        u_s = u + (alpha_s - alpha_t) u_x_hat

    Daras et al., "Soft Diffusion" (2022), for schedules with a_t = 1; where sigma is constant,
    nothing but `u_s = u_t + (alpha_s - alpha_t) u_x_hat` is left: Algorithm 2 of Bansal et al.,
    "Cold Diffusion" (2022). The last step adds no noise.
    """

    def check_model(self, denoiser):
        super().check_model(denoiser)
        if not denoiser.process.keeps_scale:
            raise UserError(
                "MomentumSampler is for processes with a_t = 1: sample with AncestralSampler"
            )

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process = denoiser.process
        u_t = process.basis.to_frequency(z_t)
        _, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (process.alpha_sigma([v]) for v in (t, s))
        variance_lost = sigma_t**2 - sigma_s**2
        share_lost = tf.math.divide_no_nan(variance_lost, sigma_t**2)
        eta = tf.where(is_last, 0.0, tf.sqrt(tf.maximum(variance_lost, 0.0))) * noise
        u = u_t + share_lost * (alpha_t * u_x_hat - u_t) + eta
        return u + (alpha_s - alpha_t) * u_x_hat, memory
