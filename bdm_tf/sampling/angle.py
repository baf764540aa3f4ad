"""Steps that are exact for Gaussian images of the training images' spectrum."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.angles import angle
from bdm_tf.grids import FittedGrid, TimeGrid
from bdm_tf.sampling.sampler import Sampler, needs_continuous_time, needs_noise
from bdm_tf.spectrum import needed
from bdm_tf.system.errors import check_counts


@gin.register
class AngleSampler(Sampler):
    """Euler's method on the probability flow, in the angle between image and noise.

    With m and C the mean and variance of the training images' coefficients, `s_t^2 = alpha_t^2 C +
    sigma_t^2` the variance of u_t, and `tan(theta_t) = sigma_t / (alpha_t sqrt(C))`, the flow of
    `y_t = (u_t - alpha_t m) / s_t` is, for each frequency,

        dy / dtheta = v_hat,   v_hat = cos(theta) u_eps_hat - sin(theta) (u_x_hat - m) / sqrt(C)

    and a step is `y_s = y_t + (theta_s - theta_t) v_hat`. The v_hat of Gaussian data is 0: for
    these a step of any length is exact, where one of DDIM, which keeps u_x_hat and u_eps_hat,
    shrinks them by `cos(theta_t - theta_s)`. The last step returns u_x_hat. Not in the paper.

    Steps of second order take v_hat half a step further along the line through the last two (Adams
    and Bashforth), in the number of the step: the angle of a single frequency may hardly move for
    many steps, and no slope can be found by it.

    Args:
        grid: the times of the steps; None is `FittedGrid`.
        order: 1 is Euler's method, 2 the one of two steps.
    """

    needs_spectrum = True
    draws_noise = False

    def __init__(self, grid: TimeGrid | None = None, order: int = 2):
        super().__init__(grid or FittedGrid())
        check_counts("AngleSampler", 1, 2, order=order)
        self._order = order

    def memory(self, shape):
        return () if self._order == 1 else (tf.zeros([]), tf.zeros(shape))

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process = denoiser.process
        spectrum = needed(denoiser.spectrum, type(self).__name__)
        u_eps_hat, u_x_hat = denoiser(z_t, tf.fill([z_t.shape[0]], t))
        alpha_t, theta_t, length_t = _polar(process, spectrum, t)
        alpha_s, theta_s, length_s = _polar(process, spectrum, s)
        # In units of the standard deviation; 0 where a coefficient never varies.
        image = tf.math.divide_no_nan(u_x_hat - spectrum.mean, spectrum.deviation)
        v_hat = tf.cos(theta_t) * u_eps_hat - tf.sin(theta_t) * image
        if self._order == 2:
            weight, before = memory  # weight 0 at the first step
            memory = tf.constant(0.5), v_hat
            v_hat += weight * (v_hat - before)
        y_t = (process.basis.to_frequency(z_t) - alpha_t * spectrum.mean) / length_t
        u_s = alpha_s * spectrum.mean + length_s * (y_t + (theta_s - theta_t) * v_hat)
        return tf.where(is_last, u_x_hat, u_s), memory

    def check_model(self, denoiser):
        super().check_model(denoiser)
        needs_noise(self, denoiser)
        needs_continuous_time(self, denoiser)


def _polar(process, spectrum, t):
    """alpha_t, the angle and the standard deviation of u_t, each `[1, H, W, C]` or alike."""
    alpha, sigma = process.alpha_sigma([t])
    length = tf.sqrt(alpha**2 * spectrum.variance + sigma**2)
    return alpha, angle(alpha, sigma, spectrum), length
