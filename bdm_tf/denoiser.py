"""Network, process and parametrisation together: what a sampler needs to know of a model."""

from __future__ import annotations

import tensorflow as tf

from bdm_tf.parametrisations import Parametrisation, PredictEps
from bdm_tf.priors import Prior, StandardNormal


class Denoiser:
    """Estimates the noise and the clean image behind z_t.

    Args:
        network: `network(z_t [B, H, W, C], t [B])` predicts in pixel space.
        process: the diffusion process it was trained on.
        clip: keep x_hat within [-1, 1] in pixel space and take the noise from what is left. The
            mean of images lies in that range, so a perfect network is not touched; the estimates
            of an unfinished one no longer diverge.
        parametrisation: what the network predicts; None is `PredictEps`.
        prior: where samples begin; None is `StandardNormal`.
    """

    def __init__(
        self,
        network,
        process,
        clip: bool = False,
        *,
        parametrisation: Parametrisation | None = None,
        prior: Prior | None = None,
    ):
        self.network = network
        self.process = process
        self.parametrisation = parametrisation or PredictEps()
        self.prior = prior or StandardNormal()
        self.clip = clip

    def __call__(
        self, z_t: tf.Tensor, t: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `u_eps_hat` and `u_x_hat`, coefficients `[B, H, W, C]` (Eq. 21).

        Args:
            z_t: `[B, H, W, C]`.
            t: times `[B]`.
            dropout_seed: int32 `[2]`, or None for no dropout.
        """
        process, basis = self.process, self.process.basis
        u_f = basis.to_frequency(self.predict(z_t, t, dropout_seed))
        u_t = basis.to_frequency(z_t)
        u_eps_hat, u_x_hat = self.parametrisation.coefficients(process, u_f=u_f, u_t=u_t, t=t)
        if self.clip:
            u_x_hat = basis.to_frequency(tf.clip_by_value(basis.to_pixel(u_x_hat), -1.0, 1.0))
            u_eps_hat = process.u_eps_from_u_x(u_t, u_x_hat, t)
        return u_eps_hat, u_x_hat

    def predict(
        self, z_t: tf.Tensor, t: tf.Tensor, dropout_seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the network's own output, `[B, H, W, C]` in pixel space."""
        if dropout_seed is None:
            return self.network(z_t, t)
        return self.network(z_t, t, dropout_seed)
