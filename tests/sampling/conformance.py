"""Every sampler, grid, projection and parametrisation once, as a model to draw from."""

import numpy as np
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.fitted_priors import BlurredImages, GaussianPrior
from bdm_tf.noise_prior import NoisePrior
from bdm_tf.parametrisations import (
    PredictEDM,
    PredictPreconditioned,
    PredictResidual,
    PredictStep,
    PredictV,
    PredictX,
)
from bdm_tf.projections import (
    DynamicThreshold,
    NoProjection,
    PixelClip,
    SpectralClip,
    SpectralShrink,
)
from bdm_tf.sampling import (
    AncestralSampler,
    AngleSampler,
    DDIMSampler,
    DPMSolver2MSampler,
    EDMSampler,
    FittedGrid,
    HeunSampler,
    IHDMSampler,
    KarrasGrid,
    LogNormalGrid,
    LogSNRGrid,
    MomentumSampler,
    NaiveSampler,
    PowerGrid,
    RelaySampler,
    UniformGrid,
    WarmSampler,
)
from bdm_tf.spectrum import Spectrum
from bdm_tf.trust import Trust
from bdm_tf.warm import PredictBlurAndRest
from tests import toy_models
from tests.sampling.models import fitted, levels

SHAPE, STEPS = (4, 4, 2), 6
_RNG = np.random.default_rng(5)
SPECTRUM = Spectrum(_RNG.normal(size=SHAPE) * 0.1, _RNG.uniform(0.05, 0.5, SHAPE))
SPECTRUM.trust = Trust(np.linspace(0.0, 1.0, 3), _RNG.uniform(0.3, 1.0, (3, *SHAPE)))


def _of(sampler, projection=None, parametrisation=None, process=None, prior=None):
    process = process or toy_models.blurring()
    # Not PredictEps: a network that knows nothing would have its rounding magnified by 1 / alpha.
    parametrisation = parametrisation or PredictX()
    if prior is not None and prior.is_fitted:
        fitted(prior, process, levels(12, SHAPE))

    def network(z_t, t):
        answer = 2.0 * toy_models.small_network(z_t, t)  # so that projections have work
        return tf.concat([answer] * parametrisation.num_heads, axis=-1)

    denoiser = Denoiser(
        network,
        process,
        projection,
        parametrisation=parametrisation,
        prior=prior,
        spectrum=SPECTRUM,
    )
    return sampler, denoiser


CASES = {
    "ancestral": lambda: _of(AncestralSampler(grid=UniformGrid()), NoProjection()),
    "ancestral, noisy": lambda: _of(AncestralSampler("noisy", PowerGrid()), SpectralClip()),
    "DDIM": lambda: _of(DDIMSampler(grid=LogSNRGrid()), PixelClip()),
    "DDIM, half": lambda: _of(DDIMSampler(0.5, KarrasGrid()), DynamicThreshold()),
    "DDIM, shrunk": lambda: _of(DDIMSampler(), SpectralShrink()),
    "2M": lambda: _of(DPMSolver2MSampler(FittedGrid()), SpectralClip()),
    "2M, preconditioned": lambda: _of(
        DPMSolver2MSampler(PowerGrid(3.0)), None, PredictPreconditioned(scale_input=True)
    ),
    "Heun": lambda: _of(HeunSampler(FittedGrid(0.0)), None, PredictPreconditioned()),
    "angle": lambda: _of(AngleSampler(), SpectralClip()),
    "angle, a sigma for each frequency": lambda: _of(
        AngleSampler(), None, PredictPreconditioned(), toy_models.variance_preserving()
    ),
    "2M, a sigma for each frequency": lambda: _of(
        DPMSolver2MSampler(), SpectralClip(), process=toy_models.variance_preserving()
    ),
    "Heun, a sigma for each frequency": lambda: _of(
        HeunSampler(), SpectralClip(), process=toy_models.variance_preserving()
    ),
    "EDM": lambda: _of(
        EDMSampler(), PixelClip(), PredictEDM(), toy_models.exploding(5.0), NoisePrior()
    ),
    "EDM, churned": lambda: _of(
        EDMSampler(3.0, s_noise=1.1, grid=LogNormalGrid()),
        PixelClip(),
        PredictEDM(),
        toy_models.exploding(5.0),
        NoisePrior(),
    ),
    "relay": lambda: _of(
        RelaySampler(), PixelClip(), PredictEDM(), toy_models.relay(), GaussianPrior()
    ),
    "warm": lambda: _of(
        WarmSampler(),
        PixelClip(),
        PredictBlurAndRest(),
        toy_models.warm(sigma_max=5.0),
        NoisePrior(),
    ),
    "ancestral, progressive": lambda: _of(
        AncestralSampler(), SpectralClip(), PredictV(), toy_models.progressive()
    ),
    "ancestral, noise by the spectrum": lambda: _of(
        AncestralSampler(grid=PowerGrid(last=0.996)),
        SpectralClip(),
        PredictX(),
        toy_models.equal_snr(SPECTRUM),
        NoisePrior(),
    ),
    "ancestral, noise by a power law": lambda: _of(
        AncestralSampler(), SpectralClip(), PredictX(), toy_models.power_law(), NoisePrior()
    ),
    "DDIM, of gDDIM": lambda: _of(DDIMSampler(grid=PowerGrid(last=0.996)), PixelClip()),
    "IHDM": lambda: _of(
        IHDMSampler(), PixelClip(), PredictStep(), toy_models.ihdm(STEPS), BlurredImages()
    ),
    "Cold": lambda: _of(
        MomentumSampler(), None, PredictX(), toy_models.cold(), BlurredImages(noise=0.0)
    ),
    "naive": lambda: _of(
        NaiveSampler(), SpectralClip(), PredictResidual(), toy_models.ihdm(STEPS), BlurredImages()
    ),
}


def draw(case, count=4, first=0, seed=(0, 7), num_steps=STEPS, **more):
    sampler, denoiser = case
    given = {"shape": (count, *SHAPE), "seed": list(seed), "num_steps": num_steps, "first": first}
    return sampler(denoiser, **given, **more)
