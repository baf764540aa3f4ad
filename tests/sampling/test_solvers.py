"""Fast samplers with the optimal network for Gaussian data, where all is known in closed form."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.angles import angle
from bdm_tf.denoiser import Denoiser
from bdm_tf.parametrisations import PredictEps, PredictPreconditioned, PredictX
from bdm_tf.projections import DynamicThreshold, NoProjection, PixelClip, SpectralClip
from bdm_tf.sampling import (
    AncestralSampler,
    AngleSampler,
    DDIMSampler,
    DPMSolver2MSampler,
    FittedGrid,
    HeunSampler,
    LogSNRGrid,
    PowerGrid,
)
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests import oracle
from tests.toy_models import blurring, cold, ihdm, variance_preserving

SHAPE = (4, 4, 2)
_INDEX = np.add.outer(np.arange(4) ** 2, np.arange(4) ** 2)[..., None]
VARIANCE = np.broadcast_to(0.05 / (1.0 + _INDEX), SHAPE)
MEAN = np.random.default_rng(0).normal(size=SHAPE) * 0.05
SPECTRUM = Spectrum(MEAN, VARIANCE)
SECOND_ORDER = [DPMSolver2MSampler, HeunSampler]
CONTINUOUS = [*SECOND_ORDER, AngleSampler]


def optimal(process, projection=None, parametrisation=None):
    """The denoiser of N(MEAN, VARIANCE)."""
    parametrisation = parametrisation or PredictX()
    basis, mean, variance = process.basis, np.float32(MEAN), np.float32(VARIANCE)

    def network(z_t, t):
        alpha, sigma = process.alpha_sigma(t)
        u = basis.to_frequency(z_t) - alpha * mean
        whole = alpha**2 * variance + sigma**2
        if isinstance(parametrisation, PredictEps):
            return basis.to_pixel(sigma * u / whole)
        if isinstance(parametrisation, PredictPreconditioned):
            return tf.zeros_like(z_t)
        return basis.to_pixel(mean + alpha * variance / whole * u)

    return Denoiser(
        network, process, projection, parametrisation=parametrisation, spectrum=SPECTRUM
    )


def drawn(sampler, denoiser, num_steps, count=4):
    draw = tf.function(
        lambda: sampler(denoiser, shape=(count, *SHAPE), seed=[0, 3], num_steps=num_steps)
    )
    return oracle.to_frequency(np.float64(draw()))


@pytest.mark.parametrize("process", [blurring(), blurring(0.0), variance_preserving()])
@pytest.mark.parametrize("solver", SECOND_ORDER, ids=lambda s: s.__name__)
def test_halving_the_steps_of_a_second_order_solver_quarters_its_error(solver, process):
    denoiser = optimal(process, parametrisation=PredictPreconditioned())
    found = [drawn(solver(PowerGrid()), denoiser, n) for n in (40, 80, 160)]
    coarse, fine = (np.abs(a - b).mean() for a, b in zip(found, found[1:]))
    assert np.log2(coarse / fine) >= 1.8


@pytest.mark.parametrize("process", [blurring(), blurring(20.0), variance_preserving()])
def test_steps_of_angles_are_exact_for_gaussian_data_however_few(process):
    denoiser, n = optimal(process), 4
    few, many = (drawn(AngleSampler(), denoiser, steps) for steps in (n, 200))
    # All but the last step, which returns E[x | z_t] in place of a draw of x.
    first = denoiser.spectrum, tf.constant([1.0 / n, 1.0 / 200])
    t = FittedGrid().times(process, first[1], first[0])
    left = [np.cos(a) for a in angle(*process.alpha_sigma(t), first[0]).numpy()]
    np.testing.assert_allclose((few - MEAN) / left[0], (many - MEAN) / left[1], atol=2e-4)


@pytest.mark.parametrize("process", [blurring(), blurring(0.0), variance_preserving()])
@pytest.mark.parametrize("order", [1, 2])
def test_steps_of_angles_are_of_their_order(order, process):
    denoiser = optimal(process)
    spread = VARIANCE * (1.0 + 2.0 * np.random.default_rng(1).random(SHAPE))
    denoiser.spectrum = Spectrum(MEAN, spread)  # another than the data's: steps are not exact
    sampler = AngleSampler(PowerGrid(), order)
    found = [drawn(sampler, denoiser, n) for n in (40, 80, 160)]
    coarse, fine = (np.abs(a - b).mean() for a, b in zip(found, found[1:]))
    assert np.log2(coarse / fine) >= 1.8 if order == 2 else 0.8 < np.log2(coarse / fine) < 1.3


def test_ddim_is_of_first_order():
    denoiser = optimal(blurring(), parametrisation=PredictPreconditioned())
    found = [drawn(DDIMSampler(grid=PowerGrid()), denoiser, n) for n in (40, 80, 160)]
    coarse, fine = (np.abs(a - b).mean() for a, b in zip(found, found[1:]))
    assert 0.8 < np.log2(coarse / fine) < 1.3


SAMPLERS = {
    "ancestral": lambda grid: AncestralSampler(grid=grid),
    "DDIM": lambda grid: DDIMSampler(0.0, grid),
    "DDIM, half": lambda grid: DDIMSampler(0.5, grid),
    "2M": DPMSolver2MSampler,
    "Heun": HeunSampler,
    "angle": AngleSampler,
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "grid, sigma_blur", [(PowerGrid(), 2.0), (FittedGrid(), 2.0), (FittedGrid(), 0.0)]
)
def test_mean_and_covariance_of_the_data_are_reproduced(name, grid, sigma_blur):
    n = 1500
    sampler, denoiser = SAMPLERS[name](grid), optimal(blurring(sigma_blur))
    u = drawn(sampler, denoiser, 250, n)
    # What 250 steps leave out, and 5 standard errors.
    assert (np.abs(u.var(0) / VARIANCE - 1.0) < 0.02 + 5 * np.sqrt(2 / n)).all()
    assert (np.abs(u.mean(0) - MEAN) < 1e-3 + 5 * np.sqrt(VARIANCE / n)).all()
    between = np.corrcoef(u.reshape(n, -1).T) - np.eye(u[0].size)
    assert np.abs(between).max() < 5 / np.sqrt(n)


def spread(sampler, projection, num_steps=40, n=1000):
    """Largest change of a deviation, relative, that a projection makes; and without one."""
    free, bounded = (
        drawn(sampler, optimal(blurring(), p), num_steps, n) for p in (NoProjection(), projection)
    )
    return np.abs(bounded.std(0) / free.std(0) - 1.0).max()


@pytest.mark.parametrize("name", ["ancestral", "DDIM", "2M"])
def test_projections_hardly_change_a_perfect_network(name):
    sampler = SAMPLERS[name](FittedGrid())
    # Pixels of these data lie within [-1, 1]: nothing is cut off.
    assert spread(sampler, PixelClip()) < 1e-4
    assert spread(sampler, DynamicThreshold()) < 1e-4
    # A normal distribution cut off at k deviations has so much less: 4.6% at 2.5, 0.1% at 4.
    assert 0.01 < spread(sampler, SpectralClip(2.5)) < 0.06
    assert spread(sampler, SpectralClip(5.0)) < 1e-3


def test_eta_1_is_ancestral_sampling_and_between_is_between():
    denoiser = optimal(blurring())
    ancestral = drawn(AncestralSampler(grid=PowerGrid()), denoiser, 12)
    np.testing.assert_allclose(
        drawn(DDIMSampler(1.0, PowerGrid()), denoiser, 12), ancestral, atol=2e-5
    )
    half = drawn(DDIMSampler(0.5, PowerGrid()), denoiser, 12)
    none = drawn(DDIMSampler(0.0, PowerGrid()), denoiser, 12)
    assert np.abs(half - none).max() > 1e-3 and np.abs(half - ancestral).max() > 1e-3


@pytest.mark.parametrize("sigma_blur", [0.0, 2.0])
def test_2m_follows_its_recursion_in_float64(sigma_blur):
    process, n = blurring(sigma_blur), 9
    denoiser, start = optimal(process), {}

    def spying(z_t, t):
        start.setdefault("z", z_t)
        return denoiser.network(z_t, t)

    spied = Denoiser(spying, process, parametrisation=PredictX(), spectrum=SPECTRUM)
    found = DPMSolver2MSampler(PowerGrid())(spied, shape=(3, *SHAPE), seed=[3, 1], num_steps=n)
    u, before = oracle.to_frequency(np.float64(start["z"])), None
    times = (np.arange(n + 1) / n) ** 2
    for k in range(n, 0, -1):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            oracle.alpha_sigma([times[j]], 4, 4, sigma_blur) for j in (k, k - 1)
        )
        gain = alpha_t * VARIANCE / (alpha_t**2 * VARIANCE + sigma_t**2)
        x = MEAN + gain * (u - alpha_t * MEAN)
        h = np.log(alpha_s / sigma_s) - np.log(alpha_t / sigma_t)
        d = x if before is None else x + h / (2 * before[1]) * (x - before[0])
        u = x if k == 1 else sigma_s / sigma_t * u - alpha_s * np.expm1(-h) * d
        before = x, h
    np.testing.assert_allclose(found, oracle.to_pixel(u), atol=5e-5)


def test_heun_counts_its_evaluations():
    asked = []
    process = blurring()

    def network(z_t, t):
        asked.append(float(t[0]))
        return 0.5 * z_t

    denoiser = Denoiser(network, process, parametrisation=PredictX())
    HeunSampler()(denoiser, shape=(1, *SHAPE), seed=[0, 0], num_steps=4)
    np.testing.assert_allclose(asked, [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25])
    assert HeunSampler().evaluations(4) == len(asked) == 7
    assert DPMSolver2MSampler().evaluations(4) == AncestralSampler().evaluations(4) == 4


@pytest.mark.parametrize("solver", CONTINUOUS, ids=lambda s: s.__name__)
def test_fast_samplers_refuse_what_they_are_not_for(solver):
    def check(process):
        solver().check(Denoiser(lambda z, t: z, process, parametrisation=PredictX()))

    with pytest.raises(UserError, match=f"{solver.__name__} needs noise, but sigma_t is 0"):
        check(cold())
    with pytest.raises(UserError, match="is for processes in continuous time.* 10 steps"):
        check(ihdm())
    check(blurring())


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan"), True, (1, 2)])
def test_an_eta_that_is_none_is_refused(eta):
    with pytest.raises(UserError, match="eta=.* must be a number at least 0, at most 1"):
        DDIMSampler(eta)


def test_log_snr_steps_are_the_best_for_gaussian_data_without_blur():
    # FACT of this solver: ten times the accuracy of uniform steps.
    denoiser, exact = optimal(blurring(0.0)), np.sqrt(VARIANCE)
    errors = [
        np.abs(drawn(DPMSolver2MSampler(grid), denoiser, 20, 2000).std(0) / exact - 1).mean()
        for grid in (None, LogSNRGrid())
    ]
    assert errors[1] < errors[0]
