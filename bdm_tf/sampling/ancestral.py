"""Ancestral sampling: draws of p(u_s | u_t), one after another (Algorithm 1, Appendix A.1)."""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf

from bdm_tf.sampling.noise import PRIOR, checked_num_steps, image_seeds, normal


@gin.register
class AncestralSampler:
    """Draws p(u_s | u_t) = q(u_s | u_t, u_x_hat) on the grid t = T/T, ..., 1/T (Eq. 22, 23).

    Args:
        last_step: "x_hat" returns the estimate of the image at t = 1/T, without noise; "noisy"
            is Appendix A.1 to the letter, a draw of the last step's distribution as well.
    """

    def __init__(self, last_step: str = "x_hat"):
        if last_step not in ("x_hat", "noisy"):
            raise ValueError(f'last_step={last_step!r} must be "x_hat" or "noisy"')
        self._last_step = last_step

    def __call__(
        self, denoiser, *, shape: Sequence[int], seed: tf.Tensor, num_steps, first=0
    ) -> tf.Tensor:
        """Draws images `first ... first + n - 1` of a seed.

        Args:
            denoiser: a `Denoiser`.
            shape: `(n, H, W, C)`, static.
            seed: int32 `[2]`.
            num_steps: T, network evaluations; an int or a scalar tensor, at least 1.
            first: index of the first image; image i's noise depends on (seed, i) alone.

        Returns:
            float32 `[n, H, W, C]`, in [-1, 1] as far as the network keeps to it.
        """
        count, *image_shape = shape
        num_steps = checked_num_steps(num_steps)
        process, basis = denoiser.process, denoiser.process.basis
        seeds = image_seeds(seed, first, count)

        def step(k, z_t):
            t, s = (tf.cast(v, tf.float32) / tf.cast(num_steps, tf.float32) for v in (k, k - 1))
            _, u_x_hat = denoiser(z_t, tf.fill([count], t))
            coeff_u_t, coeff_u_x, sigma2 = process.denoising_distribution(s=[s], t=[t])
            mean = coeff_u_t * basis.to_frequency(z_t) + coeff_u_x * u_x_hat
            # White noise is white in every orthonormal basis, so it is drawn as coefficients.
            u_s = mean + tf.sqrt(sigma2) * normal(seeds, num_steps + 1 - k, image_shape)
            if self._last_step == "x_hat":
                u_s = tf.where(k == 1, u_x_hat, u_s)
            return k - 1, basis.to_pixel(u_s)

        z = normal(seeds, PRIOR, image_shape)
        _, x = tf.while_loop(lambda k, _: k > 0, step, [num_steps, tf.ensure_shape(z, shape)])
        return x
