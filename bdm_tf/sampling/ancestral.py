"""Ancestral sampling: draws of p(u_s | u_t), one after another (Algorithm 1, Appendix A.1)."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.grids import TimeGrid
from bdm_tf.sampling.sampler import Sampler, needs_noise


@gin.register
class AncestralSampler(Sampler):
    """Draws p(u_s | u_t) = q(u_s | u_t, u_x_hat) on the grid t = T/T, ..., 1/T (Eq. 22, 23).

    Args:
        last_step: "x_hat" returns the estimate of the image at t = 1/T, without noise; "noisy"
            is Appendix A.1 to the letter, a draw of the last step's distribution as well.
        grid: the times of the steps; None is `UniformGrid`.
    """

    def __init__(self, last_step: str = "x_hat", grid: TimeGrid | None = None):
        super().__init__(grid)
        if last_step not in ("x_hat", "noisy"):
            raise ValueError(f'last_step={last_step!r} must be "x_hat" or "noisy"')
        self._last_step = last_step

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process = denoiser.process
        _, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        coeff_u_t, coeff_u_x, sigma2 = process.denoising_distribution(s=[s], t=[t])
        mean = coeff_u_t * process.basis.to_frequency(z_t) + coeff_u_x * u_x_hat
        # White noise is white in every orthonormal basis, so it is drawn as coefficients.
        u_s = mean + tf.sqrt(sigma2) * noise
        return tf.where(is_last & (self._last_step == "x_hat"), u_x_hat, u_s), memory

    def check_model(self, denoiser):
        super().check_model(denoiser)
        needs_noise(self, denoiser)
