"""Parametrisations, objectives, samplers and processes: what does not go together is refused."""

import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess
from bdm_tf.diffusion.blur_schedules import LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise
from bdm_tf.objectives import BlurredMSE, ImageL1, PredictionMSE, StepMSE, VariationalLoss
from bdm_tf.parametrisations import PredictEps, PredictStep, PredictV, PredictX
from bdm_tf.sampling import (
    AncestralSampler,
    DDIMSampler,
    IHDMSampler,
    MomentumSampler,
    NaiveSampler,
)
from bdm_tf.system.errors import UserError
from tests.toy_models import EVERY, TIMES, blurring, cold, draw, ihdm, small_network


def denoiser_of(process, parametrisation):
    return Denoiser(small_network, process, parametrisation=parametrisation)


def refused(check, *arguments, words):
    with pytest.raises(UserError, match=words):
        check(*arguments)


@pytest.mark.parametrize(
    "objective, process, parametrisation, words",
    [
        (PredictionMSE(), ihdm(), PredictStep(), "PredictionMSE.*PredictStep: give StepMSE"),
        (VariationalLoss(), ihdm(), PredictStep(), "VariationalLoss.*give StepMSE"),
        (ImageL1(), ihdm(), PredictStep(), "ImageL1.*give StepMSE"),
        (BlurredMSE(), ihdm(), PredictStep(), "BlurredMSE.*give StepMSE"),
        (StepMSE(), ihdm(), PredictX(), "StepMSE goes with .*PredictStep"),
        (VariationalLoss(), cold(), PredictX(), "VariationalLoss needs noise"),
        (BlurredMSE(), cold(), PredictX(), "sigma_t, which is 0: give ImageL1"),
    ],
)
def test_losses_refuse_models_that_cannot_learn_by_them(objective, process, parametrisation, words):
    refused(objective.check, denoiser_of(process, parametrisation), words=words)


@pytest.mark.parametrize(
    "sampler, process, parametrisation, words",
    [
        (AncestralSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (DDIMSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (MomentumSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (NaiveSampler(), ihdm(), PredictStep(), "PredictStep: sample with IHDMSampler"),
        (AncestralSampler(), cold(), PredictX(), "needs noise.*MomentumSampler"),
        (DDIMSampler(), cold(), PredictX(), "needs noise.*NaiveSampler"),
        (IHDMSampler(), ihdm(), PredictX(), "IHDMSampler goes with .*PredictStep"),
        (IHDMSampler(), blurring(), PredictStep(), r"blur of K steps.*LogBlur\.num_steps"),
        (MomentumSampler(), blurring(), PredictX(), "a_t = 1: sample with AncestralSampler"),
    ],
)
def test_samplers_refuse_models_that_they_are_not_for(sampler, process, parametrisation, words):
    denoiser = denoiser_of(process, parametrisation)
    refused(sampler.check, denoiser, words=words)
    with pytest.raises(UserError, match=words):
        sampler(denoiser, shape=(1, 4, 4, 2), seed=[0, 0], num_steps=10)


def test_predict_eps_refuses_what_has_no_noise_or_no_signal():
    refused(PredictEps().check, cold(), words="sigma_t is 0: choose PredictX")
    strong = LogBlur(0.5, 24.0, num_steps=200)
    vanishing = BlurringProcess((32, 32, 3), noise=ConstantNoise(0.02), blur=strong)
    assert vanishing.alpha_sigma([1.0])[0].numpy().min() == 0.0  # it underflows
    refused(PredictEps().check, vanishing, words="choose PredictV .*min_scale to 0.001")
    for variance_preserving in (False, True):
        floored = BlurringProcess(
            (32, 32, 3),
            noise=ConstantNoise(0.02),
            blur=LogBlur(0.5, 24.0, num_steps=200, min_scale=0.001),
            variance_preserving=variance_preserving,
        )
        PredictEps().check(floored)
    PredictEps().check(BlurringProcess((32, 32, 3)))


def test_what_no_noise_leaves_undefined_is_refused():
    refused(PredictV().check, cold(), words="sigma_t is 0: choose PredictX")
    none, blur = ConstantNoise(0.0), LogBlur()
    with pytest.raises(UserError, match="variance_preserving needs noise"):
        BlurringProcess((4, 4, 2), noise=none, blur=blur, variance_preserving=True)


def test_steps_are_for_blurs_of_k_steps_that_keep_the_scale():
    refused(PredictStep().check, blurring(), words=r"blur of K steps.*LogBlur\.num_steps")
    noise, blur = ConstantNoise(0.02), LogBlur(num_steps=10)
    rescaled = BlurringProcess((4, 4, 2), noise=noise, blur=blur, variance_preserving=True)
    refused(PredictStep().check, rescaled, words="a_t = 1.*without variance_preserving")
    cosine = BlurringProcess((4, 4, 2), blur=blur)
    refused(PredictStep().check, cosine, words="a_t = 1.*ConstantNoise")
    PredictStep().check(ihdm())


def test_a_step_names_neither_noise_nor_image():
    x, _ = draw()
    denoiser = denoiser_of(ihdm(), PredictStep())
    refused(denoiser, x, tf.constant(TIMES), words="one step earlier.*IHDMSampler")


def test_what_goes_together_is_accepted():
    for parametrisation in EVERY:
        parametrisation.check(blurring())
        for objective in (PredictionMSE(), VariationalLoss(), ImageL1(), BlurredMSE()):
            objective.check(denoiser_of(blurring(), parametrisation))
        AncestralSampler().check(denoiser_of(blurring(), parametrisation), 1000)
    StepMSE().check(denoiser_of(ihdm(), PredictStep()))
    IHDMSampler().check(denoiser_of(ihdm(), PredictStep()), 10)
    PredictX().check(cold())
    ImageL1().check(denoiser_of(cold(), PredictX()))
    MomentumSampler().check(denoiser_of(cold(), PredictX()), 50)
