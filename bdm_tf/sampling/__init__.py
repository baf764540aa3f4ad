"""Samplers: `sampler(denoiser, shape=, seed=, num_steps=, first=)` -> images in [-1, 1]."""

from bdm_tf.grids import (
    FittedGrid,
    KarrasGrid,
    LogNormalGrid,
    LogSNRGrid,
    PowerGrid,
    TimeGrid,
    UniformGrid,
)
from bdm_tf.sampling.ancestral import AncestralSampler
from bdm_tf.sampling.angle import AngleSampler
from bdm_tf.sampling.ddim import DDIMSampler
from bdm_tf.sampling.dpm_solver import DPMSolver2MSampler
from bdm_tf.sampling.edm import EDMSampler, RelaySampler
from bdm_tf.sampling.heun import HeunSampler
from bdm_tf.sampling.ihdm import IHDMSampler
from bdm_tf.sampling.momentum import MomentumSampler, NaiveSampler
from bdm_tf.sampling.sampler import Sampler
from bdm_tf.sampling.warm import WarmSampler

__all__ = [
    "AncestralSampler",
    "AngleSampler",
    "DDIMSampler",
    "DPMSolver2MSampler",
    "EDMSampler",
    "FittedGrid",
    "HeunSampler",
    "IHDMSampler",
    "KarrasGrid",
    "LogNormalGrid",
    "LogSNRGrid",
    "MomentumSampler",
    "NaiveSampler",
    "PowerGrid",
    "RelaySampler",
    "Sampler",
    "TimeGrid",
    "UniformGrid",
    "WarmSampler",
]
