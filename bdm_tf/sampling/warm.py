"""Warm Diffusion's flow (Hsueh et al., 2025), with noise and image estimated apart."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.sampling.edm import FromEndToEnd


@gin.register
class WarmSampler(FromEndToEnd):
    """Heun's method in `du = u_x_hat d alpha + u_eps_hat d sigma`.

    For `alpha = exp(-lambda ratio^2 sigma^2 / 2)` it is Warm Diffusion's flow,

        du / dsigma = (u - u_blur_hat) / sigma - lambda ratio^2 sigma alpha u_x_hat

    Their solver is not public; this one is ours. It never divides by alpha, and where alpha is 1 it
    is `EDMSampler` without churn.

    Args:
        grid: the times of the steps; None is `KarrasGrid`.
    """

    draws_noise = False

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process, count = denoiser.process, z_t.shape[0]
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (process.alpha_sigma([v]) for v in (t, s))
        u_t = process.basis.to_frequency(z_t)
        u_eps, u_x = denoiser(z_t, tf.fill([count], t))

        def along(u_eps, u_x):
            return u_t + (sigma_s - sigma_t) * u_eps + (alpha_s - alpha_t) * u_x

        def corrected():
            z_s = process.basis.to_pixel(along(u_eps, u_x))
            eps_there, x_there = denoiser(z_s, tf.fill([count], s))
            return along(0.5 * (u_eps + eps_there), 0.5 * (u_x + x_there))

        return tf.cond(is_last, lambda: u_x, corrected), memory
