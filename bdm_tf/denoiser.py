"""Network, process and parametrisation together: what a sampler needs to know of a model."""

from __future__ import annotations

import tensorflow as tf


class Denoiser:
    """Estimates the noise and the clean image behind z_t.

    Args:
        network: `network(z_t [B, H, W, C], t [B])` predicts eps in pixel space.
        process: the diffusion process it was trained on.
    """

    def __init__(self, network, process):
        self.network = network
        self.process = process

    def __call__(self, z_t: tf.Tensor, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `u_eps_hat` and `u_x_hat`, coefficients `[B, H, W, C]` (Eq. 21)."""
        basis = self.process.basis
        u_eps_hat = basis.to_frequency(self.network(z_t, t))
        return u_eps_hat, self.process.u_x_from_u_eps(basis.to_frequency(z_t), u_eps_hat, t)
