"""What a network's estimates are worth, against regressions in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.denoiser import Denoiser
from bdm_tf.fitted import load_trust, prepare_trust
from bdm_tf.parametrisations import PredictEps, PredictX
from bdm_tf.projections import SpectralShrink
from bdm_tf.sampling import AngleSampler, DDIMSampler
from bdm_tf.spectrum import Spectrum, measure_spectrum
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import read_npz, write_npz
from bdm_tf.trust import Trust, measure_trust
from tests import oracle
from tests.toy_models import blurring

SHAPE, COUNT = (4, 4, 2), 2100
_INDEX = np.add.outer(np.arange(4) ** 2, np.arange(4) ** 2)[..., None]


def images():
    """Gaussian pixels, as good as without cuts at black and white."""
    u = np.random.default_rng(0).normal(size=(COUNT, *SHAPE)) * np.sqrt(0.05 / (1.0 + _INDEX))
    return np.clip(np.round((oracle.to_pixel(u) + 1.0) * 127.5), 0, 255).astype(np.uint8)


IMAGES = images()
SPECTRUM = measure_spectrum(lambda: [IMAGES], blurring().basis)


def batches():
    return (IMAGES[i : i + 700] for i in range(0, COUNT, 700))


def model(parametrisation, error=0.0):
    """The best network for Gaussian data, with an error beside it."""
    process = blurring()
    basis, mean, variance = process.basis, SPECTRUM.mean, SPECTRUM.variance

    def network(z_t, t):
        alpha, sigma = process.alpha_sigma(t)
        u = basis.to_frequency(z_t) - alpha * mean
        whole = alpha**2 * variance + sigma**2
        best = sigma * u / whole
        if isinstance(parametrisation, PredictX):
            best = mean + alpha * variance / whole * u
        if not error:
            return basis.to_pixel(best)
        seed = tf.stack([tf.cast(t[0] * 1e6, tf.int32), tf.shape(z_t)[0]])
        wrong = error * tf.random.stateless_normal(tf.shape(z_t), seed)
        return basis.to_pixel(best + wrong)

    return Denoiser(network, process, parametrisation=parametrisation, spectrum=SPECTRUM)


def test_the_best_network_is_trusted():
    found = measure_trust(model(PredictX()), batches, COUNT)
    # The signal's share; where it is small, so many images do not tell a slope.
    alpha, sigma = oracle.alpha_sigma(found.times, 4, 4, 2.0)
    seen = alpha**2 * SPECTRUM.variance / (alpha**2 * SPECTRUM.variance + sigma**2) > 0.2
    assert seen.mean() > 0.3 and np.median(found.slope[seen]) > 0.99
    assert found.slope[seen].min() > 0.85


def test_an_error_is_trusted_as_far_as_the_images_vary_more():
    found = measure_trust(model(PredictEps(), error=0.3), batches, COUNT)
    alpha, sigma = oracle.alpha_sigma(found.times, 4, 4, 2.0)
    gain = alpha**2 * SPECTRUM.variance / (alpha**2 * SPECTRUM.variance + sigma**2)
    best = gain * SPECTRUM.variance  # the variance of the best estimate
    expected = best / (best + (0.3 * sigma / alpha) ** 2)
    assert expected.min() < 0.01 and expected.max() > 0.99
    np.testing.assert_allclose(found.slope, expected, atol=0.12)


def test_slopes_are_read_on_straight_lines():
    slope = np.stack([np.full(SHAPE, v, np.float32) for v in (1.0, 0.5, 0.0)])
    trust = Trust(np.float32([0.0, 0.2, 1.0]), slope)
    found = trust.at(tf.constant([0.0, 0.1, 0.2, 0.6, 1.0]))
    np.testing.assert_allclose(found[:, 0, 0, 0], [1.0, 0.75, 0.5, 0.25, 0.0], atol=1e-6)


@pytest.mark.parametrize("sampler", [AngleSampler(), DDIMSampler()])
def test_shrinking_leaves_the_best_network_and_holds_a_bad_one(sampler):
    def deviations(denoiser, projection):
        spectrum = measure_spectrum(lambda: [IMAGES], blurring().basis)
        spectrum.trust = measure_trust(denoiser, batches, COUNT) if projection else None
        bounded = Denoiser(
            denoiser.network,
            denoiser.process,
            projection,
            parametrisation=denoiser.parametrisation,
            spectrum=spectrum,
        )
        draw = tf.function(
            lambda: sampler(bounded, shape=(1000, *SHAPE), seed=[0, 3], num_steps=15)
        )
        return oracle.to_frequency(np.float64(draw())).std(0)

    best = model(PredictX())
    free, shrunk = (deviations(best, p) for p in (None, SpectralShrink()))
    np.testing.assert_allclose(shrunk, free, rtol=0.1)
    bad = model(PredictEps(), error=0.3)
    free, shrunk = (deviations(bad, p) / SPECTRUM.deviation for p in (None, SpectralShrink()))
    assert free.max() > 2.0 and shrunk.max() < 1.5


def test_without_a_measurement_it_says_where_it_comes_from():
    denoiser = Denoiser(
        lambda z, t: z,
        blurring(),
        SpectralShrink(),
        spectrum=measure_spectrum(batches, blurring().basis),
    )
    with pytest.raises(UserError, match="SpectralShrink needs .* run the training command again"):
        denoiser(tf.zeros([1, *SHAPE]), tf.constant([0.5]))


@pytest.mark.parametrize(
    "times, slope, words",
    [
        ([0.0, 0.0], np.zeros((2, *SHAPE)), "times that rise"),
        ([0.0, 1.0], np.zeros((3, *SHAPE)), r"slopes \[2, H, W, C\]"),
        ([0.0, 1.0], np.full((2, *SHAPE), np.nan), r"lie in \[0, 1\]"),
    ],
)
def test_what_is_no_trust_is_refused(times, slope, words):
    with pytest.raises(UserError, match=words):
        Trust(np.float32(times), slope)


class Weights:
    """A model of one weight, as far as trust needs it."""

    def __init__(self, weight):
        self.spectrum = Spectrum(SPECTRUM.mean, SPECTRUM.variance)
        self.ema_network = type("Network", (), {"trainable_variables": [tf.Variable(weight)]})
        self.denoiser = lambda: model(PredictX())


def test_a_workdirs_trust_is_that_of_its_weights_alone(tmp_path):
    one, other = Weights(1.0), Weights(2.0)
    prepare_trust(one, str(tmp_path), batches)
    again = Weights(1.0)
    assert load_trust(again, str(tmp_path))
    np.testing.assert_array_equal(again.spectrum.trust.slope, one.spectrum.trust.slope)
    assert not load_trust(other, str(tmp_path)) and other.spectrum.trust is None
    arrays = read_npz(str(tmp_path / "trust.npz"))
    write_npz(str(tmp_path / "trust.npz"), {**arrays, "slope": arrays["slope"][:, :2]})
    with pytest.raises(UserError, match="of images of another shape"):
        load_trust(Weights(1.0), str(tmp_path))
    (tmp_path / "trust.npz").write_text("not an archive")
    with pytest.raises(UserError, match=r"it is no \.npz archive; remove it"):
        load_trust(Weights(1.0), str(tmp_path))
