"""Heun's method on the probability flow: second order, two network evaluations a step."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.sampling.sampler import Sampler, needs_continuous_time, needs_noise


@gin.register
class HeunSampler(Sampler):
    """A step of DDIM, and the same step again with the mean of both ends' estimates of the image.

    With `lambda = log(alpha / sigma)` of each frequency and `h = lambda_s - lambda_t` the
    probability flow is solved exactly for a constant estimate of the image,

        u_s = (sigma_s / sigma_t) u_t + alpha_s (1 - e^-h) u_x_hat,

    first with that of t, then with the mean of those of t and of s. The trapezoid of Karras et al.
    (2022), Algorithm 1, in a form that never divides by alpha. The last step returns u_x_hat.

    T steps take 2 T - 1 network evaluations.

    Args:
        grid: the times of the steps; None is `UniformGrid`.
    """

    draws_noise = False

    def evaluations(self, num_steps):
        return 2 * num_steps - 1

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process, count = denoiser.process, z_t.shape[0]
        _, u_x_hat = denoiser(z_t, tf.fill([count], t))
        (_, sigma_t), (alpha_s, sigma_s) = (process.alpha_sigma([v]) for v in (t, s))
        kept = sigma_s / sigma_t * process.basis.to_frequency(z_t)
        drift = -alpha_s * tf.math.expm1(0.5 * process.logsnr_difference([s], [t]))

        def corrected():
            z_s = process.basis.to_pixel(kept + drift * u_x_hat)
            _, there = denoiser(z_s, tf.fill([count], s))
            return kept + drift * 0.5 * (u_x_hat + there)

        return tf.cond(is_last, lambda: u_x_hat, corrected), memory

    def check_model(self, denoiser):
        super().check_model(denoiser)
        needs_noise(self, denoiser)
        needs_continuous_time(self, denoiser)
