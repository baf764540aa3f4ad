"""Samplers: `sampler(denoiser, shape=, seed=, num_steps=, first=)` -> images in [-1, 1]."""

from bdm_tf.sampling.ancestral import AncestralSampler
from bdm_tf.sampling.ddim import DDIMSampler
from bdm_tf.sampling.ihdm import IHDMSampler
from bdm_tf.sampling.momentum import MomentumSampler, NaiveSampler

__all__ = ["AncestralSampler", "DDIMSampler", "IHDMSampler", "MomentumSampler", "NaiveSampler"]
