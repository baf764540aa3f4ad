"""Every gin file builds the model and the data source that it describes."""

import glob
import os

import gin
import numpy as np
import pytest
import scipy.fft
import tensorflow as tf
from sklearn.datasets import load_digits

from bdm_tf import config, data, diffusion, exporting, networks, objectives, sampling  # noqa: F401
from bdm_tf.denoiser import Denoiser
from bdm_tf.evaluation import job  # noqa: F401, for gin
from bdm_tf.model import build_model, build_sample_settings
from bdm_tf.noise import image_seeds
from bdm_tf.spectrum import Spectrum
from bdm_tf.training import loop  # noqa: F401, for gin
from tests import oracle
from tests.conftest import ROOT

GIN = os.path.join(ROOT, "gin")
ALL = sorted(os.path.relpath(p, GIN) for p in glob.glob(f"{GIN}/**/*.gin", recursive=True))
FILES = [file for file in ALL if not file.startswith("eval")]
EVALUATIONS = [file for file in ALL if file.startswith("eval") and not file.endswith("base.gin")]
# The structure as it is, at a width that is built in a moment.
NARROW = ["UNet.channels = 32", "UNet.head_dim = 32"]


# What is given after an experiment's file.
OVERLAYS = ("ablations", "base", "networks", "sampling")


@pytest.mark.parametrize("file", FILES)
def test_every_gin_file_builds(file):
    base = [os.path.join(GIN, "digits.gin")] if file.startswith(OVERLAYS) else []
    config.parse([*base, os.path.join(GIN, file)], NARROW)
    sides = {"lsun_church_64": 64, "lsun_church_128": 128}
    side = sides.get(file.removesuffix(".gin").split(os.sep)[0], 32)
    config.bind("Model.image_shape", (side, side, 3))
    model = build_model()
    assert model.network.trainable_variables
    settings = build_sample_settings(model)
    preview = config.parameters(config.operative_text()).get("train.sample_num_steps", "100")
    settings.sampler.check(model.denoiser(), int(preview) if preview != "None" else None)
    if base:  # a model of its own
        flat = np.zeros((side, side, 3)), np.ones((side, side, 3))
        model.use_spectrum(Spectrum(*flat), "the test's")
        x, noise = np.random.default_rng(0).uniform(-1, 1, (2, 3, side, side, 3)).astype("float32")
        losses = model.objective(model.learner(), x, tf.constant([0.1, 0.5, 0.9]), noise)
        assert losses.shape == 3 and np.isfinite(losses).all()
    source = "ImageFolder" if file == "folder.gin" else "TFDSImages"
    assert gin.get_configurable(source)()


@pytest.mark.parametrize("folder", ["digits", "cifar10", "cifar10_small", "lsun_church_128"])
def test_a_folder_of_models_starts_from_its_data_set(folder):
    for file in [file for file in FILES if file.startswith(f"{folder}{os.sep}")]:
        config.parse([os.path.join(GIN, f"{folder}.gin")], [])
        expected = config.parameters(config.operative_text())
        config.parse([os.path.join(GIN, file)], [])
        found = config.parameters(config.operative_text())
        for name, value in expected.items():
            if name.startswith("TFDSImages"):
                assert found[name] == value, file


@pytest.mark.parametrize(
    "file, name, value",
    [
        ("blur_0", "sigma_blur_max", 0.0),
        ("blur_1", "sigma_blur_max", 1.0),
        ("blur_10", "sigma_blur_max", 10.0),
        ("blur_20", "sigma_blur_max", 20.0),
        ("blur_sin", "power", 1),
        ("blur_sin2", "power", 2),
    ],
)
def test_an_ablation_overrides_the_experiment_it_follows(file, name, value):
    paths = [os.path.join(GIN, "cifar10.gin"), os.path.join(GIN, "ablations", f"{file}.gin")]
    config.parse(paths, [])
    assert gin.query_parameter(f"BlurSchedule.{name}") == value
    assert gin.query_parameter("UNet.channels") == 256


def test_gddims_schedule_is_their_cosine():
    config.parse(["digits.gin", "base/gddim.gin"], [])
    noise, t = gin.get_configurable("CosineSchedule")(), np.linspace(0.0, 1.0, 11)
    a, sigma = noise.a_sigma(tf.constant(t, tf.float32))
    angle = (t + 0.004) / 1.008 * np.pi / 2
    np.testing.assert_allclose(a, np.cos(angle), rtol=2e-6)
    np.testing.assert_allclose(sigma, np.sin(angle), rtol=2e-6)


def test_gddims_steps_sample_gaussian_images_of_the_digits_spectrum():
    config.parse(["digits/gddim.gin"], ["BlurringProcess.image_shape = (8, 8, 1)"])
    process = gin.get_configurable("BlurringProcess")()
    digits = scipy.fft.dctn(load_digits().images / 8 - 1, axes=(1, 2), norm="ortho")
    variance = digits.var(0)[..., None]

    def network(z_t, t):  # is exact
        alpha, sigma = process.alpha_sigma(t)
        gain = sigma / (alpha**2 * variance + sigma**2)
        return process.basis.to_pixel(gain * process.basis.to_frequency(z_t))

    sampler, denoiser = gin.get_configurable("DDIMSampler")(), Denoiser(network, process)
    given = {"shape": (1, 8, 8, 1), "seed": [0, 7]}
    z_1 = denoiser.prior.draw(process, image_seeds(tf.constant([0, 7]), 0, 1), (8, 8, 1))
    for num_steps, squared_distance in ((20, 0.230), (50, 0.0400)):
        x = sampler(denoiser, num_steps=num_steps, **given)
        deviation = process.basis.to_frequency(x) / process.basis.to_frequency(z_1)
        expected = gddims_deviation(variance, num_steps)
        np.testing.assert_allclose(deviation[0], expected, rtol=1e-2)
        found = np.sum((expected - np.sqrt(variance)) ** 2)
        assert abs(found - squared_distance) < 0.01 * squared_distance  # docs/results.md


def gddims_deviation(variance, num_steps):
    """Of samples of N(0, variance) in each frequency, `[8, 8, 1]`, in float64."""

    def alpha_sigma(t):
        angle = (t + 0.004) / 1.008 * np.pi / 2
        return np.cos(angle) * oracle.frequency_scaling([t], 8, 8, 2.5)[0], np.sin(angle)

    u = np.ones([8, 8, 1])
    for k in range(num_steps, 0, -1):
        (alpha, sigma), (alpha_s, sigma_s) = (
            alpha_sigma(0.99598 * (n / num_steps) ** 2) for n in (k, k - 1)
        )
        eps = sigma * u / (alpha**2 * variance + sigma**2)
        x = (u - sigma * eps) / alpha
        u = alpha_s * x + sigma_s * eps
    return x


@pytest.mark.parametrize("file", EVALUATIONS)
def test_every_evaluation_names_its_protocol(file):
    config.parse([os.path.join(GIN, file)], [])
    counts = {"cifar10": 50_000, "lsun_church": 10_000, "digits": 1797}
    (name,) = [name for name in counts if f"{name}.gin" in file]
    assert gin.query_parameter("evaluate.num_images") == counts[name]
    evaluators = gin.query_parameter("evaluate.evaluators")
    assert {"FrechetDistance", "BitsPerDimension"} <= {e.selector for e in evaluators}
    assert callable(gin.query_parameter("evaluate.features").scoped_configurable_fn)
