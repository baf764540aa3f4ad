"""The corruption process: `u_t = alpha_t * u_x + sigma_t * u_eps` in a basis."""

from bdm_tf.diffusion.bases import DCT, Basis
from bdm_tf.diffusion.blur_schedules import BlurSchedule, CumulativeBlur, LogBlur
from bdm_tf.diffusion.layer import DiffusionLayer
from bdm_tf.diffusion.noise_schedules import (
    ConstantNoise,
    CosineSchedule,
    GeometricNoise,
    NoiseSchedule,
)
from bdm_tf.diffusion.process import BlurringProcess
from bdm_tf.diffusion.progressive import ProgressiveNoise
from bdm_tf.diffusion.relay import LogNormalNoise, PatchDCT
from bdm_tf.diffusion.shaped_noise import BlockNoise, EqualSNRNoise, PowerLawNoise
from bdm_tf.diffusion.warm import BlurByNoise

__all__ = [
    "DCT",
    "Basis",
    "BlockNoise",
    "BlurByNoise",
    "BlurSchedule",
    "BlurringProcess",
    "ConstantNoise",
    "CosineSchedule",
    "CumulativeBlur",
    "DiffusionLayer",
    "EqualSNRNoise",
    "GeometricNoise",
    "LogBlur",
    "LogNormalNoise",
    "NoiseSchedule",
    "PatchDCT",
    "PowerLawNoise",
    "ProgressiveNoise",
]
