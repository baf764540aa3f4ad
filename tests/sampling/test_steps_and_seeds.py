"""How many steps each sampler takes, and that an image depends on its seed and number alone."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.blur_schedules import BlurSchedule
from bdm_tf.fitted_priors import BlurredImages, GaussianPrior
from bdm_tf.parametrisations import PredictResidual, PredictStep, PredictX
from bdm_tf.priors import StandardNormal
from bdm_tf.sampling import (
    AncestralSampler,
    DDIMSampler,
    IHDMSampler,
    MomentumSampler,
    NaiveSampler,
)
from bdm_tf.system.errors import UserError
from tests.sampling.models import SHAPE, Spied, cold, fitted, ihdm, levels, soft

# --- how many steps -------------------------------------------------------------------------------


def refused_as_int_and_as_tensor(sampler, denoiser, num_steps, words):
    def draw(n):
        return sampler(denoiser, shape=(1, *SHAPE), seed=[0, 7], num_steps=n)

    with pytest.raises(UserError, match=words):
        draw(num_steps)
    with pytest.raises(UserError, match=words):
        sampler.check(denoiser, num_steps)
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_steps"):
        tf.function(draw)(tf.constant(num_steps))


def silent(process, parametrisation):
    prior = fitted(BlurredImages(), process)
    return Denoiser(lambda z, t: 0.1 * z, process, parametrisation=parametrisation, prior=prior)


@pytest.mark.parametrize("num_steps", [0, 19, 21])
def test_ihdm_takes_its_own_number_of_steps_alone(num_steps):
    denoiser = silent(ihdm(20), PredictStep())
    words = f"num_steps={num_steps} .*IHDMSampler.* 20 steps alone"
    refused_as_int_and_as_tensor(IHDMSampler(), denoiser, num_steps, words)
    IHDMSampler().check(denoiser, 20)


@pytest.mark.parametrize(
    "sampler, num_steps", [(MomentumSampler(), 0), (MomentumSampler(), 51), (NaiveSampler(), 51)]
)
def test_cold_diffusion_refuses_more_steps_than_it_learnt(sampler, num_steps):
    denoiser = silent(cold(), PredictX())
    refused_as_int_and_as_tensor(sampler, denoiser, num_steps, f"num_steps={num_steps} .*1 to 50")


@pytest.mark.parametrize("num_steps", [1, 10, 20, 49, 50])
def test_fewer_steps_of_cold_diffusion_are_at_times_that_it_learnt(num_steps):
    spied = Spied(cold(), fitted(BlurredImages(), cold()))
    spied.draw(NaiveSampler(), num_steps, count=1)
    learnt = np.arange(51, dtype=np.float32) / np.float32(50)
    assert len(spied.times) == num_steps and set(spied.times) <= {float(t) for t in learnt[1:]}
    assert (np.diff(spied.times) < 0).all() and spied.times[0] == 1.0
    even = np.arange(num_steps, 0, -1) / num_steps
    np.testing.assert_allclose(spied.times, even, atol=0.5 / 50 + 1e-6)


def test_without_steps_of_its_own_a_model_takes_any_number():
    for process, sampler in [(ihdm(20), AncestralSampler()), (soft(), MomentumSampler())]:
        spied = Spied(process, fitted(BlurredImages(), process))
        spied.draw(sampler, 33, count=1)
        np.testing.assert_allclose(spied.times, np.arange(33, 0, -1) / 33, rtol=1e-6)
        words = "num_steps=0 must be at least 1"
        refused_as_int_and_as_tensor(sampler, silent(process, PredictX()), 0, words)


def test_samplers_say_what_another_number_of_steps_does():
    assert "any number" in AncestralSampler().about_steps(ihdm(20))
    assert "any number" in MomentumSampler().about_steps(soft())
    assert "20 steps alone" in IHDMSampler().about_steps(ihdm(20))
    about = MomentumSampler().about_steps(cold())
    assert "1 to 50 steps" in about and "more are refused" in about


# --- seeds ----------------------------------------------------------------------------------------

MODELS = {
    "IHDM": (IHDMSampler(), ihdm(5), PredictStep(), BlurredImages(noise=0.025)),
    "IHDM as Gaussian": (AncestralSampler(), ihdm(5), PredictX(), BlurredImages()),
    "Cold": (MomentumSampler(), cold(), PredictX(), GaussianPrior(noise=0.002)),
    "Cold, Algorithm 1": (NaiveSampler(), cold(), PredictX(), BlurredImages(noise=0.0)),
    "Soft": (MomentumSampler(), soft(), PredictResidual(), GaussianPrior()),
    "Soft, naive": (NaiveSampler(), soft(), PredictResidual(), GaussianPrior(num_components=2)),
    "white": (
        DDIMSampler(),
        BlurringProcess(SHAPE, blur=BlurSchedule(2.0)),
        PredictX(),
        StandardNormal(),
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_image_depends_on_seed_and_number_alone(model):
    sampler, process, parametrisation, prior = model
    if prior.is_fitted:
        fitted(prior, process, levels(12))
    denoiser = Denoiser(lambda z, t: 0.5 * z, process, parametrisation=parametrisation, prior=prior)

    def draw(count, seed=(0, 7), first=0):
        return sampler(
            denoiser, shape=(count, *SHAPE), seed=list(seed), num_steps=5, first=first
        ).numpy()

    whole = draw(7)
    np.testing.assert_allclose(whole[3:], draw(4, first=3), atol=1e-5)
    assert np.abs(whole - draw(7, seed=(0, 8))).max() > 0.02
    assert len(np.unique(whole.round(4), axis=0)) > 3  # of blurred images some come twice


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(shape=(0, *SHAPE)), r"shape=\(0, .* n at least 1"),
        (dict(shape=SHAPE), r"must be \(n, H, W, C\)"),
        (dict(shape=(2, 4, 4, 2)), r"the model's images are of shape \(8, 8, 2\)"),
        (dict(seed=7), "two whole numbers"),
        (dict(seed=[0, 2**31]), "two whole numbers"),
        (dict(seed=[0, 1.5]), "two whole numbers"),
        (dict(seed=tf.constant([0, 7], tf.int64)), r"seed is int64 \(2,\), must be int32 \[2\]"),
        (dict(first=-1), "first=-1"),
        (dict(first=2**31 - 2), "below 2"),
    ],
)
def test_draws_that_cannot_be_are_refused_in_words(given, words):
    denoiser = silent(soft(), PredictX())
    wanted = dict(shape=(2, *SHAPE), seed=[0, 7], num_steps=3) | given
    with pytest.raises(UserError, match=words):
        AncestralSampler()(denoiser, **wanted)
