"""The corruption process: `u_t = alpha_t * u_x + sigma_t * u_eps` in an orthonormal basis."""

from bdm_tf.diffusion.bases import DCT
from bdm_tf.diffusion.layer import DiffusionLayer
from bdm_tf.diffusion.process import BlurringProcess
from bdm_tf.diffusion.schedules import BlurSchedule, CosineSchedule

__all__ = ["DCT", "BlurSchedule", "BlurringProcess", "CosineSchedule", "DiffusionLayer"]
