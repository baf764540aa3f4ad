"""The process in every basis against dense float64 matrices; SavedModel, XLA, two replicas."""

import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from tests import oracle
from tests.conftest import ROOT
from tests.diffusion.test_bases import (
    CASES,
    COLUMNS,
    HEIGHT,
    ORTHONORMAL,
    ROWS,
    WIDTH,
    dense,
    every_basis,
    images,
)

TIMES = np.array([0.2, 0.7], np.float32)
DRAWS = 20_000


def process(name, sigma_blur_max=2.0):
    blur = BlurSchedule(sigma_blur_max=sigma_blur_max)
    return BlurringProcess((HEIGHT, WIDTH, 3), basis=CASES[name].basis, blur=blur)


def alpha_sigma(name, t):
    """The diagonal alpha_t of all coefficients and sigma_t at one time, by Eq. 25 to 27."""
    t = np.float64(t)
    a, sigma = oracle.noise_scaling_cosine(t)
    dissipation_time = (2.0 * np.sin(t * np.pi / 2) ** 2) ** 2 / 2
    scaling = np.exp(-CASES[name].frequencies_squared.ravel() * dissipation_time)
    return a * (0.999 * scaling + 0.001), sigma


def fading(name, diagonal):
    """`P diag(.) P^-1`."""
    return CASES[name].p @ np.diag(diagonal) @ CASES[name].inverse


def covariance(name, variances):
    """`P diag(.) P^T`."""
    return CASES[name].p @ np.diag(variances) @ CASES[name].p.T


def module(name, **options):
    """A module that diffuses any number of images with noise that it is given white."""
    tested = tf.Module()
    diffusion = process(name)
    image = tf.TensorSpec([None, HEIGHT, WIDTH, 3])
    tested.diffuse = tf.function(
        lambda x, t, white: diffusion.diffuse(x, t, diffusion.basis.noise(white)),
        input_signature=[image, tf.TensorSpec([None]), image],
        **options,
    )
    return tested


@every_basis
def test_diffusion_is_the_kronecker_algebra_of_equation_29(name):
    x, eps = images(), images(seed=1)
    z_t = process(name).diffuse(tf.constant(x), tf.constant(TIMES), tf.constant(eps))
    for i, t in enumerate(TIMES):
        alpha, sigma = alpha_sigma(name, t)
        expected = dense(fading(name, alpha), x[i : i + 1]) + sigma * eps[i : i + 1]
        np.testing.assert_allclose(z_t[i : i + 1], expected, atol=1e-5)


@every_basis
def test_diffused_draws_have_the_mean_and_covariance_of_equation_29(name):
    x, t = images(1, channels=1), np.float32(0.6)
    white = tf.random.stateless_normal([DRAWS, HEIGHT, WIDTH, 1], [1, 2])
    tested = process(name)
    z_t = tested.diffuse(
        tf.repeat(tf.constant(x), DRAWS, 0), tf.fill([DRAWS], t), tested.basis.noise(white)
    )
    z_t = z_t.numpy().astype(np.float64).reshape(DRAWS, -1)
    alpha, sigma = alpha_sigma(name, t)
    expected = covariance(name, np.full(HEIGHT * WIDTH, sigma**2))
    mean = dense(fading(name, alpha), x).ravel()
    variances = np.diag(expected)
    assert (np.abs(z_t.mean(0) - mean) < 5 * np.sqrt(variances / DRAWS)).all()
    spread = np.sqrt((np.outer(variances, variances) + expected**2) / DRAWS)
    assert (np.abs(np.cov(z_t.T) - expected) < 5 * spread).all()


@every_basis
def test_denoising_is_bayes_rule_among_the_pixels(name):
    s, t = np.float32(0.4), np.float32(0.5)
    x, z_t = images(1, channels=1), images(1, channels=1, seed=1)
    tested, basis = process(name), CASES[name].basis
    coeff_u_t, coeff_u_x, sigma2 = tested.denoising_distribution(
        s=tf.constant([s]), t=tf.constant([t])
    )
    mean = basis.to_pixel(coeff_u_t * basis.to_frequency(z_t) + coeff_u_x * basis.to_frequency(x))

    (alpha_s, sigma_s), (alpha_t, sigma_t) = alpha_sigma(name, s), alpha_sigma(name, t)
    alpha_ts = alpha_t / alpha_s
    step = fading(name, alpha_ts)  # q(z_t | z_s) = N(step z_s, extra)
    extra = covariance(name, sigma_t**2 - alpha_ts**2 * sigma_s**2)
    prior = covariance(name, np.full(HEIGHT * WIDTH, sigma_s**2))  # of q(z_s | x)
    prior_mean = fading(name, alpha_s) @ x.ravel()
    gain = prior @ step.T @ np.linalg.inv(step @ prior @ step.T + extra)
    expected_mean = prior_mean + gain @ (z_t.ravel() - step @ prior_mean)
    expected = prior - gain @ step @ prior

    np.testing.assert_allclose(np.ravel(mean), expected_mean, atol=1e-5)
    sigma2 = np.broadcast_to(sigma2, [1, HEIGHT, WIDTH, 1])
    found = covariance(name, sigma2.ravel().astype(np.float64))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    of_pixels = basis.pixel_variance(tf.constant(sigma2))
    np.testing.assert_allclose(np.ravel(of_pixels), np.diag(expected), rtol=1e-4)


@pytest.mark.parametrize("name", ORTHONORMAL)
def test_without_blur_an_orthonormal_basis_changes_nothing(name):
    x, eps = images(), images(seed=1)
    z_t = process(name, 0.0).diffuse(tf.constant(x), tf.constant(TIMES), tf.constant(eps))
    a, sigma = oracle.noise_scaling_cosine(TIMES.astype(np.float64)[:, None, None, None])
    np.testing.assert_allclose(z_t, a * x + sigma * eps, atol=1e-5)


@every_basis
def test_a_saved_model_diffuses_alike(name, tmp_path):
    tested, batch = module(name), (images(), TIMES, images(seed=1))
    tf.saved_model.save(tested, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.diffuse(*batch), tested.diffuse(*batch))


@every_basis
def test_xla_diffuses_alike(name):
    batch = images(), TIMES, images(seed=1)
    compiled = module(name, jit_compile=True).diffuse(*batch)
    np.testing.assert_allclose(compiled, module(name).diffuse(*batch), atol=1e-5)


REPLICAS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.diffusion.test_bases import CASES, images
from tests.diffusion.test_bases_everywhere import process

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
x, t, white = images(4), np.array([0.1, 0.4, 0.7, 0.9], np.float32), images(4, seed=1)
for name in CASES:
    with strategy.scope():
        tested = process(name)

    def diffuse(x, t, white):
        return tested.diffuse(x, t, tested.basis.noise(white))

    @tf.function
    def on_both():
        def on_one():
            first = 2 * tf.distribute.get_replica_context().replica_id_in_sync_group
            return diffuse(*(tf.constant(v)[first : first + 2] for v in (x, t, white)))

        return strategy.run(on_one)

    found = np.concatenate(strategy.experimental_local_results(on_both()))
    expected = diffuse(*map(tf.constant, (x, t, white)))
    np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
    print(name)
"""


def test_two_replicas_diffuse_what_one_does():
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, timeout=200, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split() == list(CASES)


def test_gin_names_every_basis(tmp_path):
    np.savez(tmp_path / "basis.npz", rows=ROWS, columns=COLUMNS)
    parameters = {
        "DCT": "",
        "PixelBasis(0.5)": "PixelBasis.frequency_squared = 0.5",
        "HaarWavelet(1)": "HaarWavelet.levels = 1",
        "Hadamard": "",
        "PatchDCT": "PatchDCT.size = 4",
        "MatrixBasis": f"MatrixBasis.path = '{tmp_path / 'basis.npz'}'",
    }
    assert {type(CASES[name].basis) for name in parameters} == {
        type(case.basis) for case in CASES.values()
    }
    for name, parameter in parameters.items():
        try:
            gin.parse_config(f"BlurringProcess.basis = @{name.split('(')[0]}()\n{parameter}")
            made = gin.get_configurable(BlurringProcess)((HEIGHT, WIDTH, 3))
        finally:
            gin.clear_config()
        np.testing.assert_allclose(
            made.basis.frequencies_squared(HEIGHT, WIDTH),
            CASES[name].frequencies_squared,
            rtol=1e-6,
        )
