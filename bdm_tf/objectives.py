"""What the network learns, as losses of single examples."""

from __future__ import annotations

import gin
import tensorflow as tf


@gin.register
class EpsilonMSE:
    """The mean squared error of eps in pixel space (Eq. 24, Algorithm 2)."""

    def __call__(self, network, process, x, t, eps, dropout_seed=None) -> tf.Tensor:
        """Returns `[B]`, the error of each example averaged over its pixels and channels.

        Args:
            network: `network(z_t, t, dropout_seed)` predicts eps.
            process: the diffusion process.
            x: images `[B, H, W, C]` in [-1, 1].
            t: times `[B]` in [0, 1].
            eps: standard normal noise shaped like `x`.
            dropout_seed: int32 `[2]`, or None for no dropout.
        """
        eps_hat = network(process.diffuse(x, t, eps), t, dropout_seed)
        return tf.reduce_mean(tf.square(eps_hat - eps), axis=[1, 2, 3])
