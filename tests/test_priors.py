"""Where sampling starts: draws against the images they were fitted to, divergences in float64."""

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.bases import HaarWavelet
from bdm_tf.diffusion.blur_schedules import LogBlur
from bdm_tf.diffusion.noise_schedules import ConstantNoise
from bdm_tf.fitted_priors import BlurredImages, GaussianPrior
from bdm_tf.noise import image_seeds
from bdm_tf.priors import StandardNormal
from bdm_tf.system import files
from tests import oracle

SHAPE = (8, 8, 2)
SIZE = 8 * 8 * 2
SIGMA, BLUR = 0.02, 4.0


def process(blur=BLUR, sigma=SIGMA, **settings):
    schedule = LogBlur(0.5, blur, num_steps=20)
    return BlurringProcess(SHAPE, noise=ConstantNoise(sigma), blur=schedule, **settings)


def levels(count, seed=0):
    """Random images with quarters of their own brightness, which blurring leaves visible."""
    rng = np.random.default_rng(seed)
    quarters = rng.integers(0, 192, (count, 2, 2, 2))
    fine = rng.integers(0, 64, (count, *SHAPE))
    return (quarters.repeat(4, 1).repeat(4, 2) + fine).astype(np.uint8)


def blurred(images, blur=BLUR):
    """uint8 images in float64, blurred by a Gaussian of that many pixels."""
    n = np.pi * np.arange(8) / 8
    squared = (n[:, None] ** 2 + n**2)[None, :, :, None]
    x = images / 127.5 - 1.0
    return oracle.to_pixel(np.exp(-squared * blur**2 / 2) * oracle.to_frequency(x))


def batches(images, batch_size=1000):
    return lambda: (images[i : i + batch_size] for i in range(0, len(images), batch_size))


def fitted(prior, images, process):
    prior.restore(prior.fit(batches(images), process))
    return prior


def draws(prior, process, count, seed=(0, 7), first=0):
    """float64 `[count, H, W, C]`."""

    @tf.function
    def draw():
        return prior.draw(process, image_seeds(tf.constant(seed), first, count), SHAPE)

    return np.float64(draw())


def flat(images):
    return images.reshape(len(images), -1)


# --- blurred images -------------------------------------------------------------------------------


def test_without_noise_each_draw_is_one_of_the_blurred_images():
    images, n = levels(40), 4000
    prior = fitted(BlurredImages(noise=0.0, tolerance=1e-3), images, process())
    drawn, real = flat(draws(prior, process(), n)), flat(blurred(images))
    distance = np.abs(drawn[:, None] - real[None]).max(2)
    # Left out: 128 coefficients at most, 1e-3 each, and orthonormal vectors of 2/8 at most.
    assert distance.min(1).max() < 5e-3
    assert np.sort(distance, 1)[:, 1].min() > 2e-2  # the next image is another
    counts = np.bincount(distance.argmin(1), minlength=40)
    # Chi-squared of 39 degrees of freedom: 39 on average, standard deviation 8.8.
    assert 39 - 4 * 8.8 < np.sum((counts - n / 40) ** 2 / (n / 40)) < 39 + 5 * 8.8


def test_few_coefficients_are_kept_and_none_that_can_be_seen():
    images = levels(40)
    arrays = BlurredImages(tolerance=1e-3).fit(batches(images), process())
    u = flat(oracle.to_frequency(blurred(images)))
    size = np.sqrt(np.mean(u**2, 0))
    np.testing.assert_array_equal(arrays["kept"], np.flatnonzero(size > 1e-3))
    assert 4 < len(arrays["kept"]) < SIZE / 4
    np.testing.assert_allclose(arrays["images"], u[:, arrays["kept"]], atol=1e-5)
    fewer = BlurredImages(tolerance=0.1).fit(batches(images), process())
    assert 1 < len(fewer["kept"]) < len(arrays["kept"])


@pytest.mark.parametrize("noise, expected", [(None, SIGMA), (0.025, 0.025), (0.3, 0.3)])
@pytest.mark.parametrize("make", [BlurredImages, GaussianPrior])
def test_the_noise_is_white_and_of_the_size_that_was_asked_for(make, noise, expected):
    same = np.repeat(levels(1), 3, 0)
    prior = fitted(make(noise=noise, tolerance=0.0), same, process())
    n = 500
    left = flat(draws(prior, process(), n) - blurred(same[:1]))
    assert abs(left.var() / expected**2 - 1) < 5 * np.sqrt(2 / left.size)
    assert abs(left.mean()) < 5 * expected / np.sqrt(left.size)
    covariance = left.T @ left / n / expected**2 - np.eye(SIZE)
    assert np.abs(covariance).max() < 6 * np.sqrt(2 / n)  # 8,256 entries: 6 standard errors


def test_noise_of_a_frequencys_own_is_the_processs():
    own = process(variance_preserving=True)
    images = levels(3)
    prior = fitted(BlurredImages(tolerance=0.0), np.repeat(images[:1], 3, 0), own)
    alpha, sigma = (np.float64(v) for v in own.alpha_sigma([1.0]))
    u = oracle.to_frequency(draws(prior, own, 2000))
    left = u - alpha * oracle.to_frequency(images[:1] / 127.5 - 1.0)
    variance = np.mean(left**2, (0, 3))
    assert (np.abs(variance / sigma[0, :, :, 0] ** 2 - 1) < 5 * np.sqrt(2 / 4000)).all()
    assert sigma.min() < 0.1 and sigma.max() > 0.99


def test_draws_are_blurred_in_the_processs_own_basis():
    haar, images = process(basis=HaarWavelet()), levels(5)
    prior = fitted(BlurredImages(noise=0.0, tolerance=0.0), images, haar)
    x = tf.constant(images / 127.5 - 1.0, tf.float32)
    real = flat(np.float64(haar.diffuse(x, tf.ones([5]), tf.zeros_like(x))))
    distance = np.abs(flat(draws(prior, haar, 20))[:, None] - real[None]).max(2)
    assert distance.min(1).max() < 1e-5
    assert np.abs(real - flat(blurred(images))).max() > 0.1


# --- Gaussians ------------------------------------------------------------------------------------


def assert_moments(drawn, mean, covariance):
    """Means and covariances within 5 to 6 standard errors of theirs."""
    n = len(drawn)
    assert (np.abs(drawn.mean(0) - mean) < 5 * np.sqrt(np.diag(covariance) / n)).all()
    away = drawn - mean
    variances = np.outer(np.diag(covariance), np.diag(covariance))
    error = np.sqrt((variances + covariance**2) / n)
    assert (np.abs(away.T @ away / n - covariance) < 6 * error).all()


@pytest.mark.parametrize("count", [300, 10])  # of 128 dimensions, 10 images span 9
def test_a_gaussian_has_the_mean_and_the_covariance_of_the_blurred_images(count):
    images, noise = levels(count), 0.05
    prior = fitted(GaussianPrior(noise=noise, tolerance=1e-3), images, process())
    real = flat(blurred(images))
    covariance = np.cov(real, rowvar=False, bias=True)
    assert np.linalg.matrix_rank(covariance, tol=1e-8) <= count - 1
    exact = covariance + noise**2 * np.eye(SIZE)
    assert_moments(flat(draws(prior, process(), 4000)), real.mean(0), exact)


def test_a_mixture_draws_two_clusters_in_proportion():
    rng = np.random.default_rng(0)
    dark, bright = (rng.integers(low, low + 40, (n, *SHAPE)) for low, n in [(0, 60), (200, 20)])
    images = np.concatenate([dark, bright]).astype(np.uint8)[rng.permutation(80)]
    prior = fitted(GaussianPrior(num_components=2, noise=SIGMA), images, process())
    n, middle = 4000, 120 / 127.5 - 1
    drawn = draws(prior, process(), n)
    is_bright = drawn.mean((1, 2, 3)) > middle
    assert abs(is_bright.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / n)
    for cluster, chosen in [(dark, ~is_bright), (bright, is_bright)]:
        real = flat(blurred(cluster))
        exact = np.cov(real, rowvar=False, bias=True) + SIGMA**2 * np.eye(SIZE)
        # scikit-learn adds 1e-6 to the variances.
        assert_moments(flat(drawn[chosen]), real.mean(0), exact + 1e-6 * np.eye(SIZE))
    assert not prior.has_divergence and GaussianPrior().has_divergence


# --- divergences ----------------------------------------------------------------------------------


def dense_kl(mean_q, covariance_q, mean_p, covariance_p):
    """KL(N(mean_q, covariance_q) || N(mean_p, covariance_p)) of whole matrices."""
    away = mean_p - mean_q
    solved = np.linalg.solve(covariance_p, covariance_q)
    logdets = np.linalg.slogdet(covariance_p)[1] - np.linalg.slogdet(covariance_q)[1]
    return 0.5 * (
        np.trace(solved) + away @ np.linalg.solve(covariance_p, away) - len(away) + logdets
    )


def as_matrix(values):
    """Values `[1, H, W, 1]` of the frequencies as a matrix of the pixels."""
    vectors = flat(oracle.to_pixel(np.eye(SIZE).reshape(SIZE, *SHAPE)))  # rows
    return vectors.T @ np.diag(np.broadcast_to(values, (1, *SHAPE)).ravel()) @ vectors


@pytest.mark.parametrize("noise", [None, 0.05])
@pytest.mark.parametrize("variance_preserving", [False, True])
@pytest.mark.parametrize("count", [300, 10])
def test_the_divergence_from_a_gaussian_is_that_of_dense_matrices(
    count, variance_preserving, noise
):
    at_end = process(variance_preserving=variance_preserving)
    images = levels(count)
    prior = fitted(GaussianPrior(noise=noise, tolerance=0.0), images, at_end)
    alpha, sigma = (np.float64(v) for v in at_end.alpha_sigma([1.0]))
    real = flat(oracle.to_pixel(alpha * oracle.to_frequency(images / 127.5 - 1.0)))
    covariance_p = np.cov(real, rowvar=False, bias=True)
    covariance_p += as_matrix(sigma**2 if noise is None else np.full_like(sigma, noise**2))
    u_x = oracle.to_frequency(levels(4, seed=1) / 127.5 - 1.0)  # not those it was fitted to
    means = flat(oracle.to_pixel(alpha * u_x))
    exact = [dense_kl(mean, as_matrix(sigma**2), real.mean(0), covariance_p) for mean in means]
    found = prior.divergence(at_end, tf.constant(u_x, tf.float32))
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_what_is_left_out_costs_next_to_nothing():
    images = levels(300)
    u_x = tf.constant(oracle.to_frequency(levels(4, seed=1) / 127.5 - 1.0), tf.float32)
    few, every = (fitted(GaussianPrior(tolerance=t), images, process()) for t in (1e-3, 0.0))
    assert few.variables["kept"].shape[0] < 0.3 * every.variables["kept"].shape[0]
    found, exact = (prior.divergence(process(), u_x).numpy() for prior in (few, every))
    assert (found != exact).all()
    np.testing.assert_allclose(found, exact, rtol=5e-3)


def test_the_divergence_from_white_noise_is_that_of_dense_matrices():
    at_end = BlurringProcess(SHAPE, blur=BlurSchedule(1.0, min_scale=0.001))
    alpha, sigma = oracle.alpha_sigma([1.0], 8, 8, 1.0)
    u_x = 100 * oracle.to_frequency(levels(3) / 127.5 - 1.0)  # visible in spite of the noise
    exact = [
        dense_kl(mean, as_matrix(sigma**2), np.zeros(SIZE), np.eye(SIZE))
        for mean in flat(oracle.to_pixel(alpha * u_x))
    ]
    found = StandardNormal().divergence(at_end, tf.constant(u_x, tf.float32))
    np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_blurred_images_have_no_divergence():
    prior = fitted(BlurredImages(), levels(3), process())
    assert not prior.has_divergence
    with pytest.raises(NotImplementedError, match="BlurredImages"):
        prior.divergence(process(), tf.zeros([1, *SHAPE]))


# --- fitting and keeping --------------------------------------------------------------------------

FITTED = [BlurredImages(), GaussianPrior(), GaussianPrior(num_components=2)]


@pytest.mark.parametrize("prior", FITTED)
def test_a_prior_that_was_written_draws_the_same(prior, tmp_path):
    arrays = prior.fit(batches(levels(30)), process())
    files.write_npz(str(tmp_path / "prior.npz"), arrays)
    prior.restore(arrays)
    before = draws(prior, process(), 5)
    again = type(prior)(**({"num_components": 2} if len(arrays.get("weights", [])) == 2 else {}))
    again.restore(files.read_npz(str(tmp_path / "prior.npz")))
    np.testing.assert_array_equal(draws(again, process(), 5), before)


@pytest.mark.parametrize("prior", FITTED)
def test_the_size_of_batches_does_not_matter(prior):
    images = levels(30)
    whole = prior.fit(batches(images), process())
    parts = prior.fit(batches(images, batch_size=7), process())
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5)
        assert parts[name].dtype in (np.float32, np.int32)


def test_a_gaussian_does_not_know_the_order_of_its_images():
    images = levels(300)
    at_end = process()
    u_x = tf.constant(oracle.to_frequency(levels(2, seed=1) / 127.5 - 1.0), tf.float32)
    found, turned = (
        fitted(GaussianPrior(), v, at_end).divergence(at_end, u_x) for v in (images, images[::-1])
    )
    np.testing.assert_allclose(found, turned, rtol=1e-4)


@pytest.mark.parametrize("prior", [StandardNormal(), *FITTED])
def test_a_draw_depends_on_seed_and_number_alone(prior):
    if prior.is_fitted:
        fitted(prior, levels(30), process())
    whole = draws(prior, process(), 7)
    np.testing.assert_allclose(whole[3:], draws(prior, process(), 4, first=3), atol=1e-6)
    assert np.abs(whole - draws(prior, process(), 7, seed=(0, 8))).max() > 0.02
    assert len(np.unique(whole.round(3), axis=0)) == 7  # by their noise, if by nothing else


def test_white_noise_needs_no_images():
    assert not StandardNormal().is_fitted and StandardNormal().fit(batches(levels(3)), None) == {}
    drawn = draws(StandardNormal(), process(), 500)
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / drawn.size)
