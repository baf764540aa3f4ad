"""EDM's sampler (Karras et al., 2022), and Relay Diffusion's, which is for blur besides."""

from __future__ import annotations

import copy
import math

import gin
import tensorflow as tf

from bdm_tf.grids import KarrasGrid, TimeGrid
from bdm_tf.sampling.sampler import Sampler, needs_continuous_time, needs_noise
from bdm_tf.system.errors import UserError, check_between, check_order

_MOST_CHURN = math.sqrt(2.0) - 1.0
_STRONGEST = 1e6  # sigma


class FromEndToEnd(Sampler):
    """T steps, at least 2, at T times: those of the grid from t = 1 to t = 0, both included.

    The last step, from t = 0, returns u_x_hat. They take 2 T - 1 network evaluations.
    """

    def __init__(self, grid: TimeGrid | None = None):
        super().__init__(KarrasGrid() if grid is None else grid)

    def evaluations(self, num_steps):
        return 2 * num_steps - 1

    def allowed_steps(self, process):
        return 2, None

    def about_steps(self, process):
        return "2 steps or more"

    def check_model(self, denoiser):
        super().check_model(denoiser)
        needs_noise(self, denoiser)
        needs_continuous_time(self, denoiser)
        if not denoiser.process.keeps_scale:
            raise UserError(
                f"{type(self).__name__} is for processes with a_t = 1: sample with HeunSampler"
            )

    def _times(self, denoiser, k, num_steps):
        last = tf.cast(num_steps - 1, tf.float32)
        places = tf.cast(tf.maximum(k - 1, 0), tf.float32) / last
        return self.grid.times(denoiser.process, places, denoiser.spectrum)


@gin.register
class EDMSampler(FromEndToEnd):
    """Heun's method in `dx / dsigma = (x - x_hat) / sigma`, with noise put in before each step.

    Algorithms 1 and 2. A step from sigma_t to sigma_s of T steps first adds noise up to

        sigma = (1 + gamma) sigma_t,  gamma = min(s_churn / T, sqrt(2) - 1)

    where `s_min <= sigma_t <= s_max`, but not beyond the process's own most noise. With `s_churn =
    0` nothing is random but z_1. T steps, at least 2, look at T times, from t = 1 to t = 0, the
    last of which returns x_hat: 2 T - 1 network evaluations.

    Args:
        s_churn: how much noise is put in over all steps, at least 0.
        s_min, s_max: sigma between which it is.
        s_noise: factor on the standard deviation of what is put in, from 0.5 to 2.
        grid: the times of the steps; None is `KarrasGrid`.
    """

    _num_steps: int | tf.Tensor = 1

    def __init__(
        self,
        s_churn: float = 0.0,
        s_min: float = 0.0,
        s_max: float = _STRONGEST,
        s_noise: float = 1.0,
        grid: TimeGrid | None = None,
    ):
        super().__init__(grid)
        check_between("EDMSampler.s_churn", s_churn, 0, 1e6)
        check_between("EDMSampler.s_min", s_min, 0, _STRONGEST)
        check_between("EDMSampler.s_max", s_max, 0, _STRONGEST)
        check_order("EDMSampler", s_min=s_min, s_max=s_max)
        check_between("EDMSampler.s_noise", s_noise, 0.5, 2)
        self._s_churn, self._s_noise, self.draws_noise = s_churn, s_noise, bool(s_churn)
        self._s_min, self._s_max = s_min, s_max

    def of_steps(self, num_steps):
        bound = copy.copy(self)
        bound._num_steps = num_steps
        return bound

    def __call__(self, denoiser, *, num_steps, **given):
        bound = self.of_steps(num_steps)
        return super(EDMSampler, bound).__call__(denoiser, num_steps=num_steps, **given)

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process, count = denoiser.process, z_t.shape[0]
        u = process.basis.to_frequency(z_t)
        if self._s_churn:
            u, t = self._churned(process, u, t, noise)
        sigma_t, sigma_s = (tf.exp(process.log_noise_to_signal([v])) for v in (t, s))
        _, u_x_hat = denoiser(process.basis.to_pixel(u), tf.fill([count], t))
        slope = (u - u_x_hat) / sigma_t

        def corrected():
            u_s = u + (sigma_s - sigma_t) * slope
            _, there = denoiser(process.basis.to_pixel(u_s), tf.fill([count], s))
            return u + (sigma_s - sigma_t) * 0.5 * (slope + (u_s - there) / sigma_s)

        return tf.cond(is_last, lambda: u_x_hat, corrected), memory

    def _churned(self, process, u_t, t, noise):
        """Coefficients with more noise, and the time at which there is so much."""
        log_sigma = process.log_noise_to_signal([t])
        sigma, steps = tf.exp(log_sigma[0]), tf.cast(self._num_steps, tf.float32)
        gamma = tf.minimum(self._s_churn / steps, _MOST_CHURN)
        found = process.time_at(log_sigma + tf.math.log1p(gamma))[0]
        inside = (self._s_min <= sigma) & (sigma <= self._s_max)
        t_hat = tf.where(inside, tf.maximum(found, t), t)
        (_, less), (_, more) = (process.alpha_sigma([v]) for v in (t, t_hat))
        added = tf.sqrt(tf.maximum(more**2 - less**2, 0.0))
        return u_t + self._s_noise * added * noise, t_hat

    def check_model(self, denoiser):
        super().check_model(denoiser)
        process = denoiser.process
        with tf.init_scope():
            fallen = process.logsnr_difference([0.0], [1.0])
            of_noise = -2.0 * tf.subtract(*tf.unstack(process.log_noise_to_signal([1.0, 0.0])))
            is_blurred = bool(tf.reduce_any(tf.abs(fallen - of_noise) > 1e-3))
        if is_blurred:
            raise UserError(
                "EDMSampler is for processes without blur: sample with RelaySampler, HeunSampler "
                "or, what PredictBlurAndRest learnt, WarmSampler"
            )


@gin.register
class RelaySampler(FromEndToEnd):
    """Relay Diffusion's sampler for blur and noise: Heun's method, and a share s of new noise.

        u_s = alpha_s u_x_hat + sqrt(1 - s^2) (sigma_s / sigma_t) (u_t - alpha_t u_x_hat)
                + s sigma_s noise

    once with u_x_hat at t, and again with the mean of both ends' `(u - u_x_hat) / sigma` (Teng et
    al., 2024). Both times with the same noise, where the published code draws twice. Without blur
    and with s = 0 it is `EDMSampler`.

    Args:
        noise_share: s, from 0 to 1.
        grid: the times of the steps; None is `KarrasGrid`.
    """

    def __init__(self, noise_share: float = 0.2, grid: TimeGrid | None = None):
        super().__init__(grid)
        check_between("RelaySampler.noise_share", noise_share, 0, 1)
        self._share, self._kept = noise_share, math.sqrt(1.0 - noise_share**2)
        self.draws_noise = bool(noise_share)

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        process, count = denoiser.process, z_t.shape[0]
        sigma_t, sigma_s = (tf.exp(process.log_noise_to_signal([v])) for v in (t, s))
        (alpha_t, _), (alpha_s, noise_s) = (process.alpha_sigma([v]) for v in (t, s))
        kept = self._kept * sigma_s / sigma_t
        u = process.basis.to_frequency(z_t)
        _, u_x_hat = denoiser(z_t, tf.fill([count], t))
        slope = (u - u_x_hat) / sigma_t

        def along(slope):
            image = u - sigma_t * slope
            return alpha_s * image + kept * (u - alpha_t * image) + self._share * noise_s * noise

        def corrected():
            u_s = along(slope)
            _, there = denoiser(process.basis.to_pixel(u_s), tf.fill([count], s))
            return along(0.5 * (slope + (u_s - there) / sigma_s))

        return tf.cond(is_last, lambda: u_x_hat, corrected), memory
