"""The relay: samples of a smaller model as the start of a second stage."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config
from bdm_tf.data import to_uint8
from bdm_tf.denoiser import Denoiser
from bdm_tf.diffusion import BlurringProcess, BlurSchedule
from bdm_tf.diffusion.relay import LogNormalNoise, PatchDCT
from bdm_tf.diffusion.shaped_noise import BlockNoise
from bdm_tf.evaluation import job  # noqa: F401, for gin
from bdm_tf.evaluation.subjects import open_subject
from bdm_tf.fitted import prior_sha256
from bdm_tf.model import build_model, build_sample_settings, load_model
from bdm_tf.noise import PRIOR, image_seeds, normal, seeds_of
from bdm_tf.parametrisations import PredictX
from bdm_tf.relay_prior import RelayPrior
from bdm_tf.restoration.functions import why_not
from bdm_tf.sampling import RelaySampler
from bdm_tf.sampling.recorder import Recorder
from bdm_tf.saved_models import INFO
from bdm_tf.system.errors import UserError
from tests.conftest import ROOT, command, run, train_command
from tests.toy_models import blurring, relay

SHAPE, SEED = (4, 4, 2), tf.constant([0, 7])
MEAN, DEVIATION = 0.2, 0.2  # of the first stage's pixels
FINE = 0.04  # the variance of what patches have besides their mean


class Gaussians(tf.Module):
    """A first stage whose pixels are independent and Gaussian."""

    def __init__(self, shape):
        super().__init__()
        self.weights, self.prior = [tf.Variable(MEAN)], {"deviation": tf.Variable(DEVIATION)}
        zero = tf.constant(0)

        def sample(seed, num_images, num_steps=zero, first=zero):
            noise = tf.map_fn(
                lambda s: tf.random.stateless_normal(shape, s),
                seeds_of(seed, first + tf.range(num_images)),
                fn_output_signature=tf.float32,
            )
            return to_uint8(self.weights[0] + self.prior["deviation"] * noise)

        counts = [tf.TensorSpec([], tf.int32, name=n) for n in ("num_images", "num_steps", "first")]
        signature = [tf.TensorSpec([2], tf.int32, name="seed"), *counts]
        self.sample = tf.function(sample, input_signature=signature, autograph=False)


def saved(path, shape=(2, 2, 2), **about):
    tf.saved_model.save(Gaussians(shape), path)
    info = {"image_shape": shape, "step": 1, "ema_decay": None, "sampler": "", "num_steps": 1}
    with tf.io.gfile.GFile(os.path.join(path, INFO), "w") as file:
        json.dump(info | {"config": {}, "versions": {}} | about, file)
    return path


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory):
    path = tmp_path_factory.mktemp("first") / "stage"
    (path / "assets.extra").mkdir(parents=True)
    return saved(str(path))


def exact(prior):
    """The denoiser of Gaussian images, whose patch means are those of the first stage."""
    process = relay()
    u = process.basis.to_frequency(tf.fill([1, *SHAPE], MEAN))
    is_mean = np.abs(u) > 0.1
    variance = np.float32(np.where(is_mean, 4 * DEVIATION**2, FINE))

    def network(z_t, t):
        alpha, sigma = process.alpha_sigma(t)
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return process.basis.to_pixel(u + gain * (process.basis.to_frequency(z_t) - alpha * u))

    return Denoiser(network, process, parametrisation=PredictX(), prior=prior), u, variance


@pytest.mark.parametrize("sigma", [None, 0.9])
def test_the_start_is_the_enlarged_image_and_the_noise_of_its_time(first_stage, sigma):
    process, prior = relay(), RelayPrior(first_stage, sigma)
    prior.check(process)
    seeds = image_seeds(SEED, 3, 5)
    z, t = prior.draw(process, seeds, SHAPE), prior.time(process)
    seed = tf.stack([seeds[0, 0] & tf.int32.max, 0])
    alone = tf.saved_model.load(first_stage)
    images = alone.sample(seed, tf.constant(5), first=tf.constant(3))
    u = process.basis.to_frequency(np.kron(images.numpy() / 127.5 - 1, np.ones((1, 2, 2, 1))))
    start = np.exp(1.2 * 1.4757910 - 1.2) if sigma is None else sigma  # the quantile 0.93
    noise = np.where(np.tile([[True, False], [False] * 2], (2, 2)), np.sqrt(1.09), 1.0)
    eps = process.basis.to_frequency(normal(seeds, PRIOR, SHAPE))
    expected = u + start * noise[..., None] * eps
    np.testing.assert_allclose(process.basis.to_frequency(z), expected, rtol=1e-4, atol=1e-4)
    assert (t == 1.0) == (sigma is None)
    assert not prior.begins_in_noise and why_not(exact(prior)[0], RelaySampler())


def test_an_image_depends_on_its_seed_and_number_alone(first_stage):
    process, prior = relay(), RelayPrior(first_stage, 0.9)
    together = prior.draw(process, image_seeds(SEED, 0, 6), SHAPE)
    for numbers in ([4], [5, 1, 1], [3, 4]):
        seeds = seeds_of(SEED, tf.constant(numbers))
        alone = prior.draw(process, seeds, SHAPE)
        np.testing.assert_array_equal(alone, tf.gather(together, numbers))
    other = prior.draw(process, image_seeds(tf.constant([0, 8]), 0, 6), SHAPE)
    assert not np.isclose(other, together).any()


@pytest.mark.parametrize("sigma", [None, 0.9])
def test_gaussian_patch_means_survive_an_exact_second_stage(first_stage, sigma):
    """Bounds: five standard errors, and the error of the steps."""
    count, steps = 1500, 48
    denoiser, u_mean, variance = exact(RelayPrior(first_stage, sigma))
    draw = tf.function(
        lambda: RelaySampler()(denoiser, shape=(count, *SHAPE), seed=SEED, num_steps=steps)
    )
    u = np.float64(denoiser.process.basis.to_frequency(draw()))
    errors = 5 * np.sqrt(variance / count)
    assert (np.abs(u.mean(0) - u_mean[0]) < errors).all()
    np.testing.assert_allclose(
        u.var(0), np.float64(variance[0]), rtol=5 * np.sqrt(2 / count) + 0.03
    )


def test_steps_above_the_start_are_left_out_and_frames_begin_there(first_stage):
    denoiser, *_ = exact(RelayPrior(first_stage, 0.9))
    sampler, asked = RelaySampler(noise_share=0.0), []
    network = denoiser.network

    def counted(z_t, t):
        asked.append(float(t[0]))
        return network(z_t, t)

    denoiser.network = counted
    given = dict(shape=(1, *SHAPE), seed=SEED)
    x = sampler(denoiser, num_steps=11, **given)
    start = float(denoiser.prior.time(denoiser.process))
    assert asked[0] == pytest.approx(start) and asked[-1] == 0.0
    left = int(sampler.steps_below(denoiser, tf.constant(start), 11))
    assert len(asked) == sampler.evaluations(left) < sampler.evaluations(11)
    seen = Recorder(sampler, 11, 4).trajectory(denoiser, **given)
    assert float(seen.t[0]) == pytest.approx(start) and (np.diff(seen.t) < 0).all()
    np.testing.assert_array_equal(seen.z_t[-1], x)


def in_patches(size, shape=SHAPE):
    noise = BlockNoise(LogNormalNoise())
    return BlurringProcess(shape, basis=PatchDCT(size), noise=noise, blur=BlurSchedule(3.0))


def test_first_stages_that_do_not_fit_are_refused(first_stage, tmp_path):
    prior = RelayPrior(first_stage, None)
    for process, words in (
        (in_patches(2, (6, 4, 2)), "its images are 2x2x2; .* model's, 6x4x2, by a whole factor"),
        (in_patches(2, (2, 2, 2)), "2x2x2; they must be smaller than this model's, 2x2x2"),
        (in_patches(2, (4, 8, 2)), "2x2x2; .* this model's, 4x8x2"),
        (in_patches(2, (4, 4, 1)), "4x4x1, .* with as many channels"),
        (in_patches(4), r"patches of 2x2 pixels, .*PatchDCT.size = 2"),
        (blurring(), r"BlurringProcess.basis = @PatchDCT\(\)"),
    ):
        with pytest.raises(UserError, match=f"RelayPrior.saved_model={first_stage}.*{words}"):
            prior.check(process)
    for sigma in (1e-3, 2.0):
        with pytest.raises(UserError, match=rf"sigma={sigma} must be above 0.00.* at most 1.77"):
            RelayPrior(first_stage, sigma).check(relay())
    for sigma in (-1, 0, "0.9", True):
        with pytest.raises(UserError, match="RelayPrior.sigma="):
            RelayPrior(first_stage, sigma)
    (tmp_path / "labels" / "assets.extra").mkdir(parents=True)
    labels = {"class_names": ["a"], "class_counts": [1], "label_dropout": 0.1}
    with pytest.raises(UserError, match="was trained with labels"):
        RelayPrior(saved(str(tmp_path / "labels"), **labels))
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    for path, words in (
        ("nowhere", "is not there"),
        ("", "is not a SavedModel"),
        ("other", "anot"),
    ):
        where = str(tmp_path / path)
        with pytest.raises(UserError, match=f"RelayPrior.saved_model={where}.*{words}"):
            RelayPrior(where)


def test_a_second_stage_with_labels_is_refused(first_stage):
    classes = ["class_names = ('a', 'b')", "class_counts = (1, 1)", "label_dropout = 0.1"]
    parameters = [f"Model.{setting}" for setting in ["image_shape = (4, 4, 2)", *classes]]
    begins = ["sample.prior = @RelayPrior()", f"RelayPrior.saved_model = {first_stage!r}"]
    with config.apart():
        config.parse(["digits/relay_second.gin"], [*parameters, *begins, "UNet.channels = 8"])
        model = build_model()
        with pytest.raises(UserError, match="goes on from images of any class.*label_dropout"):
            build_sample_settings(model)


def test_a_relay_is_one_saved_model_that_draws_what_the_workdir_does(
    tmp_path, finished_run, digits_dir
):
    low, workdir = str(tmp_path / "low"), str(tmp_path / "run")
    shutil.copytree(os.path.join(finished_run, "saved_model"), low)
    relay_of_8_to_16 = [
        "TFDSImages.image_size = 16",
        "sample.prior = @RelayPrior()",
        f"RelayPrior.saved_model = '{low}'",
    ]
    gin_file = "digits/relay_second.gin"
    result = run(train_command(workdir, digits_dir, *relay_of_8_to_16, gin_file=gin_file))
    assert result.returncode == 0, result.stderr[-3000:]
    model, _ = load_model(workdir)
    given = dict(seed=tf.constant([0, 7]), first=4, count=4)
    expected = build_sample_settings(model).draw(model, **given)
    strategy = tf.distribute.get_strategy()
    subject = open_subject(strategy, lambda: None, workdir=workdir)
    subject.restore_step(None)
    first_stage = subject.describe(0, 0)["prior_sha256"]
    # Steps of 20 and 50 evaluations from sigma = 0.9, and of 20 from t = 1.
    in_noise = ("sample.prior = None",)
    asked = f"steps_for(r, 20, ()), steps_for(r, 50, ()), steps_for(r, 20, {in_noise})"
    benchmarks = f"import sys; sys.path.insert(0, {os.path.join(ROOT, 'benchmarks')!r})"
    script = f"{benchmarks}; from table1 import steps_for; r = {workdir!r}; print(*({asked}))"
    steps = run([sys.executable, "-c", script])
    assert steps.stdout.split() == ["11", "29", "10"], steps.stderr[-3000:]
    os.rename(low, f"{low} is gone")
    assert first_stage == prior_sha256(model.prior.variables)["prior_sha256"]
    key = next(iter(model.prior.variables))
    others = model.prior.variables | {key: model.prior.variables[key] + 1}
    assert first_stage != prior_sha256(others)["prior_sha256"]
    alone = tf.saved_model.load(os.path.join(workdir, "saved_model"))

    def draw(num_images, first):
        counts = {"num_images": tf.constant(num_images), "first": tf.constant(first)}
        return alone.sample(seed=tf.constant([0, 7]), num_steps=tf.constant(0), **counts).numpy()

    images = draw(9, 0)
    assert np.abs(images[4:8].astype(int) - to_uint8(expected).numpy()).max() <= 1
    np.testing.assert_array_equal(draw(2, 5), images[5:7])
    with pytest.raises(tf.errors.InvalidArgumentError, match="samples begin in RelayPrior, not in"):
        alone.trajectory(seed=[0, 7], num_images=1, towards=[0, 8], weight=[0.5])
    result = run(command("export.py", f"--workdir={workdir}", f"--export_dir={tmp_path}/again"))
    assert result.returncode == 1 and f"RelayPrior.saved_model={low} is not there" in result.stderr
    assert "Traceback" not in result.stderr
