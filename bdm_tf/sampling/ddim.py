"""DDIM: the noise estimate is kept from step to step, or a part of it drawn anew."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.grids import TimeGrid
from bdm_tf.sampling.sampler import Sampler, needs_noise
from bdm_tf.system.errors import check_between


@gin.register
class DDIMSampler(Sampler):
    """`u_s = alpha_s u_x_hat + sigma_s (k u_eps_hat + eta sqrt(1 - r) noise)` per frequency.

    With `r = SNR_t / SNR_s` and `k = sqrt(1 - eta^2 (1 - r))` of each frequency: Song et al.,
    "Denoising Diffusion Implicit Models" (2020), Eq. 12 and 16, whose sigma_t is `eta sigma_s
    sqrt(1 - r)` here. With `eta = 0` nothing is random but z_1, with `eta = 1` it is ancestral
    sampling (Eq. 22). The last step returns u_x_hat.

    Args:
        eta: the share of the noise that is drawn anew, in [0, 1].
        grid: the times of the steps; None is `UniformGrid`.
    """

    def __init__(self, eta: float = 0.0, grid: TimeGrid | None = None):
        super().__init__(grid)
        check_between("DDIMSampler.eta", eta, 0, 1)
        self._eta, self.draws_noise = eta, bool(eta)

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process = denoiser.process
        u_eps_hat, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        alpha_s, sigma_s = process.alpha_sigma([s])
        if self._eta:
            one_minus_r = -tf.math.expm1(process.logsnr_difference([s], [t]))
            kept = tf.sqrt(1.0 - self._eta**2 * one_minus_r)
            u_eps_hat = kept * u_eps_hat + self._eta * tf.sqrt(one_minus_r) * noise
        return tf.where(is_last, u_x_hat, alpha_s * u_x_hat + sigma_s * u_eps_hat), memory

    def check_model(self, denoiser):
        super().check_model(denoiser)
        needs_noise(self, denoiser)
