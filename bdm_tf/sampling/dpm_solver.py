"""DPM-Solver++(2M): second order, one network evaluation a step."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.sampling.sampler import Sampler, needs_continuous_time, needs_noise


@gin.register
class DPMSolver2MSampler(Sampler):
    """Two steps' estimates of the image, extrapolated for each frequency by its own log-SNR.

    With `lambda = log(alpha / sigma)`, `h = lambda_s - lambda_t` and r the step before t,

        u_s = (sigma_s / sigma_t) u_t + alpha_s (1 - e^-h) D
        D = u_x_hat + h / (2 h_prev) (u_x_hat - u_x_hat,prev),  h_prev = lambda_t - lambda_r

    Lu et al., "DPM-Solver++" (2022), Algorithm 2, in a form that never divides by alpha. The first
    step and the last, which returns u_x_hat, are of first order.

    Args:
        grid: the times of the steps; None is `UniformGrid`.
    """

    draws_noise = False

    def memory(self, shape):
        return tf.zeros([]), tf.zeros(shape)

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        r, before = memory
        process = denoiser.process
        _, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        (_, sigma_t), (alpha_s, sigma_s) = (process.alpha_sigma([v]) for v in (t, s))
        h = -0.5 * process.logsnr_difference([s], [t])
        r = tf.where(r > 0, r, t)  # of the first step; h_prev is 0 there
        h_prev = -0.5 * process.logsnr_difference([t], [r])
        slope = 0.5 * tf.math.divide_no_nan(h, h_prev) * (u_x_hat - before)
        drift = -alpha_s * tf.math.expm1(-h) * (u_x_hat + slope)
        u_s = sigma_s / sigma_t * process.basis.to_frequency(z_t) + drift
        return tf.where(is_last, u_x_hat, u_s), (t, u_x_hat)

    def check_model(self, denoiser):
        super().check_model(denoiser)
        needs_noise(self, denoiser)
        needs_continuous_time(self, denoiser)
