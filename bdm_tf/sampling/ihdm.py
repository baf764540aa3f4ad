"""Inverse heat dissipation as Rissanen et al. sample it."""

from __future__ import annotations

import gin
import tensorflow as tf

from bdm_tf.parametrisations import PredictStep
from bdm_tf.projections import NoProjection, PixelClip
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.system.errors import UserError, check_between


@gin.register
class IHDMSampler(Sampler):
    """p(u_(k-1) | u_k) = N(u_k + f(u_k, k), delta^2) for k = K ... 1 (Eq. 11).

    The last mean is returned.

    Args:
        delta: standard deviation for images in [-1, 1]: 1.25 sigma = 0.025 as in the original's
            previews; its FIDs are measured with 0.026 (0.013 on [0, 1]).
    """

    def __init__(self, delta: float = 0.025):
        super().__init__()
        check_between("IHDMSampler.delta", delta, 0)
        self._delta = delta

    def step(self, denoiser, z_t, *, t, s, noise, is_last, memory):
        mean = z_t + denoiser.predict(z_t, tf.fill([z_t.shape[0]], t))
        if isinstance(denoiser.projection, PixelClip):  # blurred images stay within it, too
            mean = tf.clip_by_value(mean, -1.0, 1.0)
        basis = denoiser.process.basis
        z_s = mean + tf.where(is_last, 0.0, self._delta) * basis.noise(noise)
        return basis.to_frequency(z_s), memory

    def allowed_steps(self, process):
        return process.num_steps, process.num_steps

    def check(self, denoiser, num_steps=None, name="num_steps"):
        if not isinstance(denoiser.parametrisation, PredictStep):
            raise UserError("IHDMSampler goes with Model.parametrisation = @PredictStep() alone")
        denoiser.parametrisation.check(denoiser.process)
        if not isinstance(denoiser.projection, (NoProjection, PixelClip)):
            raise UserError(
                f"IHDMSampler estimates no image that {type(denoiser.projection).__name__} could "
                "bound: give NoProjection or PixelClip"
            )
        self._check_num_steps(denoiser.process, num_steps, name)
