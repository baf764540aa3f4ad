"""Network, process and parametrisation together: what a sampler needs to know of a model."""

from __future__ import annotations

import tensorflow as tf


class Denoiser:
    """Estimates the noise and the clean image behind z_t.

    Args:
        network: `network(z_t [B, H, W, C], t [B])` predicts eps in pixel space.
        process: the diffusion process it was trained on.
        clip: keep x_hat within [-1, 1] in pixel space and take the noise from what is left. The
            mean of images lies in that range, so a perfect network is not touched; the estimates
            of an unfinished one no longer diverge.
    """

    def __init__(self, network, process, clip: bool = False):
        self.network = network
        self.process = process
        self._clip = clip

    def __call__(self, z_t: tf.Tensor, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `u_eps_hat` and `u_x_hat`, coefficients `[B, H, W, C]` (Eq. 21)."""
        basis = self.process.basis
        u_eps_hat = basis.to_frequency(self.network(z_t, t))
        u_t = basis.to_frequency(z_t)
        u_x_hat = self.process.u_x_from_u_eps(u_t, u_eps_hat, t)
        if self._clip:
            u_x_hat = basis.to_frequency(tf.clip_by_value(basis.to_pixel(u_x_hat), -1.0, 1.0))
            u_eps_hat = self.process.u_eps_from_u_x(u_t, u_x_hat, t)
        return u_eps_hat, u_x_hat
