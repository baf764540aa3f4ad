"""How many images a prior is fitted to, and what it refuses: processes, sizes, arguments."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import fitted_priors
from bdm_tf.diffusion import BlurringProcess, BlurSchedule, CosineSchedule
from bdm_tf.fitted_priors import BlurredImages, GaussianPrior
from bdm_tf.noise import image_seeds
from bdm_tf.noise_prior import NoisePrior
from bdm_tf.priors import StandardNormal
from bdm_tf.system.errors import UserError
from tests.test_priors import SHAPE, batches, levels, process
from tests.toy_models import (
    SPECTRUM,
    blurring,
    cold,
    equal_snr,
    exploding,
    ihdm,
    power_law,
    progressive,
    relay,
    warm,
)


@pytest.mark.parametrize("make", [BlurredImages, GaussianPrior])
@pytest.mark.parametrize("batch_size", [7, 10, 100])
def test_at_most_the_asked_number_of_images_is_used_whatever_they_are_sorted_by(make, batch_size):
    images = levels(30)
    images = images[np.argsort(images.mean(axis=(1, 2, 3)))]
    limited = make(num_images=10).fit(batches(images, batch_size), process())
    drawn = np.random.default_rng(0).permutation(30)[:10]
    assert drawn.min() < 10 and drawn.max() >= 20
    chosen = make().fit(batches(images[np.sort(drawn)]), process())
    for name in chosen:
        np.testing.assert_allclose(limited[name], chosen[name], atol=1e-5)
    generous = make(num_images=500).fit(batches(images, batch_size), process())
    every = make().fit(batches(images), process())
    for name in every:
        np.testing.assert_allclose(generous[name], every[name], atol=1e-5)


@pytest.mark.parametrize(
    "make, arguments, words",
    [
        (BlurredImages, dict(noise=-0.1), r"BlurredImages\.noise=-0\.1"),
        (GaussianPrior, dict(noise=-0.1), r"GaussianPrior\.noise=-0\.1"),
        (BlurredImages, dict(num_images=0), r"BlurredImages\.num_images=0"),
        (GaussianPrior, dict(num_components=0), r"GaussianPrior\.num_components=0"),
    ],
)
def test_wrong_arguments_are_named(make, arguments, words):
    with pytest.raises(UserError, match=words):
        make(**arguments)


@pytest.mark.parametrize("make", [BlurredImages, GaussianPrior])
def test_what_would_not_fit_into_memory_is_refused(make, monkeypatch):
    monkeypatch.setattr(fitted_priors, "_LARGEST_ARRAY", 1000)
    name = make.__name__
    with pytest.raises(UserError, match=rf"{name} would keep .* of 30 images.*{name}\.num_images"):
        make(tolerance=0.0).fit(batches(levels(30)), process(blur=1.0))
    make(tolerance=0.0, num_images=7).fit(batches(levels(30)), process(blur=1.0))


def test_too_many_dimensions_of_a_covariance_are_refused(monkeypatch):
    monkeypatch.setattr(fitted_priors, "_MOST_DIMENSIONS", 20)
    with pytest.raises(UserError, match=r"covariance of \d+ coeff.*at most 20.*\.tolerance"):
        GaussianPrior(tolerance=0.0).fit(batches(levels(30)), process(blur=1.0))
    GaussianPrior(tolerance=0.1).fit(batches(levels(30)), process())


def test_more_gaussians_than_images_are_refused():
    with pytest.raises(UserError, match="num_components=3 needs more images than the 3"):
        GaussianPrior(num_components=3).fit(batches(levels(3)), process())


@pytest.mark.parametrize("prior", [BlurredImages(), GaussianPrior()])
def test_a_prior_without_images_says_so(prior):
    with pytest.raises(UserError, match="has not been fitted"):
        prior.draw(process(), image_seeds(tf.constant([0, 7]), 0, 2), SHAPE)


def test_a_gaussian_without_images_has_no_divergence():
    with pytest.raises(UserError, match="has not been fitted"):
        GaussianPrior().divergence(process(), tf.zeros([1, *SHAPE]))


@pytest.mark.parametrize("process", [exploding(), ihdm(), power_law(), equal_snr(SPECTRUM)])
def test_white_noise_is_refused_where_no_process_ends(process):
    with pytest.raises(UserError, match="StandardNormal begins in white noise.* @NoisePrior"):
        StandardNormal().check(process)


VISIBLE = BlurringProcess((4, 4, 2), noise=CosineSchedule(logsnr_min=0.0), blur=BlurSchedule(0.0))


@pytest.mark.parametrize("process", [relay(), ihdm(), cold(), exploding(2.0), VISIBLE])
def test_noise_alone_is_refused_where_images_are_left(process):
    with pytest.raises(UserError, match="NoisePrior begins in noise alone.* @GaussianPrior"):
        NoisePrior().check(process)


@pytest.mark.parametrize(
    "process", [blurring(), exploding(), progressive(), power_law(), equal_snr(SPECTRUM), warm()]
)
def test_noise_alone_is_taken_where_it_hides_the_images(process):
    NoisePrior().check(process)
