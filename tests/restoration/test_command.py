"""`launch/restore.py` and the SavedModel's functions, on a tiny model of digits."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

from bdm_tf.denoiser import Denoiser
from bdm_tf.fitted_priors import BlurredImages
from bdm_tf.model import build_sample_settings, load_model
from bdm_tf.noise_prior import NoisePrior
from bdm_tf.restoration.functions import why_not
from bdm_tf.restoration.known import Known, KnownPixels
from bdm_tf.restoration.observations import blurred
from bdm_tf.sampling import AncestralSampler, EDMSampler, MomentumSampler
from bdm_tf.saved_models import INFO, load_saved_model
from tests.conftest import command, run
from tests.sampling.models import cold, ihdm
from tests.toy_models import blurring, exploding

LEFT = np.arange(8)[None, :] < 4  # the half that is unknown
SEED = tf.constant([1, 5])


@pytest.fixture(scope="module")
def images():
    return np.round(load_digits().images[:6, ..., None] * (255 / 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def saved_model(finished_run):
    return os.path.join(finished_run, "saved_model")


@pytest.fixture(scope="module")
def exported(saved_model):
    return load_saved_model(saved_model)


@pytest.fixture
def files(tmp_path, images):
    """A folder of a user's files."""
    np.savez(tmp_path / "digits.npz", images=images)
    os.mkdir(tmp_path / "folder")
    for number in range(2):
        Image.fromarray(images[number, ..., 0]).save(tmp_path / "folder" / f"{number}.png")
    Image.new("RGB", (20, 30), "red").save(tmp_path / "large.png")
    Image.fromarray(np.broadcast_to(LEFT, (8, 8))).save(tmp_path / "mask.png")
    Image.new("1", (8, 8)).save(tmp_path / "black.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_text("no image")
    return tmp_path


def restore(saved_model, files, **flags):
    given = {"saved_model": saved_model, "samples": 2, "seed": 5, **flags}
    for name in ("input", "output", "mask", "truth"):
        if name in given:
            given[name] = files / given[name]
    return run(command("restore.py", *(f"--{name}={value}" for name, value in given.items())))


TASKS = {
    "vary": dict(t=0.4),
    "deblur": dict(sigma_blur=1.0, noise=0.02, degrade=True),
    "superresolve": dict(factor=2, degrade=True),
    "inpaint": dict(mask="mask.png", degrade=True),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_draws_from_images(task, saved_model, files, images):
    given = dict(task=task, input="digits.npz", output="out.npz", **TASKS[task])
    result = restore(saved_model, files, **given)
    assert result.returncode == 0, result.stderr
    found = np.load(files / "out.npz")
    samples, seen = found["samples"], found["input"]
    assert samples.shape == (6, 2, 8, 8, 1) and samples.dtype == np.uint8
    assert (samples[:, 0] != samples[:, 1]).any(axis=(1, 2, 3)).all()
    assert found["known"].shape == (6, 8, 8, 1)
    if task == "vary":
        np.testing.assert_array_equal(seen, images)
        return
    np.testing.assert_array_equal(found["truth"], images)
    for row in ("one sample", "mean of 2", "known part"):
        assert f"\n{row} " in result.stdout
    if task == "inpaint":
        np.testing.assert_array_equal(samples[:, :, :, 4:], np.stack([images[:, :, 4:]] * 2, 1))
        assert (seen[:, :, :4] == 128).all()
        return
    assert ("bicubic" if task == "superresolve" else "\ninput") in result.stdout
    assert seen.shape == ((6, 4, 4, 1) if task == "superresolve" else images.shape)


def test_a_grid_has_a_row_an_image(saved_model, files, images):
    given = dict(input="folder", output="out.png", task="deblur", sigma_blur=1, samples=3)
    result = restore(saved_model, files, **given, truth="folder")
    assert result.returncode == 0, result.stderr
    grid = np.asarray(Image.open(files / "out.png"))
    factor = grid.shape[0] // 17
    assert grid.shape == (17 * factor, (6 * 9 - 1) * factor)
    small = grid[::factor, ::factor]
    np.testing.assert_array_equal(small[:8, :8], images[0, ..., 0])
    np.testing.assert_array_equal(small[9:, -8:], images[1, ..., 0])
    assert "wrote 3 sample(s) of each of 2 image(s)" in result.stdout


def test_images_of_another_size_and_colour_are_fitted_as_in_training(saved_model, files):
    result = restore(saved_model, files, task="vary", input="large.png", output="out.png")
    assert result.returncode == 0, result.stderr
    assert "1 of 1 images resized to 8x8" in result.stdout
    assert "1 of 1 images made grey" in result.stdout


def test_an_image_depends_on_its_number_alone_and_t_1_is_sampling(exported, images):
    values, variance = blurred((8, 8, 1), 1.0, 0.02).known(images)
    whole = exported.restore(values, variance, seed=SEED).numpy()
    part = exported.restore(values[1:4], variance[1:4], seed=SEED, first=1).numpy()
    np.testing.assert_array_equal(whole[1:4], part)
    assert (whole != exported.restore(values, variance, seed=[0, 5]).numpy()).any()
    np.testing.assert_array_equal(
        exported.vary(images, 1.0, seed=SEED, first=3),
        exported.sample(seed=SEED, num_images=6, first=3),
    )
    near = exported.vary(images, 0.001, seed=SEED).numpy()
    assert np.abs(near.astype(int) - images).mean() < 5


def test_the_saved_model_draws_what_python_draws(exported, finished_run, images):
    model, _ = load_model(finished_run)
    settings = build_sample_settings(model)
    images = images[:4]  # a chunk
    given = {"shape": images.shape, "seed": SEED, "num_steps": settings.num_steps, "repeats": 5}
    values, variance = blurred((8, 8, 1), 1.0, 0.02).known(images)
    unknown = np.broadcast_to(LEFT, (4, 8, 8))
    for projection, drawn in (
        (
            Known(values, variance, after=settings.projection),
            exported.restore(values, variance, seed=SEED),
        ),
        (
            KnownPixels(images / 127.5 - 1, unknown[..., None], after=settings.projection),
            exported.inpaint(images, unknown, seed=SEED),
        ),
    ):
        x = settings.sampler(model.denoiser(projection), **given)
        pixels = np.clip((x + 1) * 127.5, 0, 255)
        assert np.abs(pixels - np.float32(drawn)).max() < 0.6


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(t=0.0), "t must lie in"),
        (dict(t=1.5), "t must lie in"),
        (dict(seed=[0, -1]), "seed must be two whole numbers from 0"),
        (dict(images=np.zeros((0, 8, 8, 1), np.uint8)), "num_images must be from 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_the_saved_model(wrong, words, exported, images):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        exported.vary(**{"images": images, "t": 0.5, "seed": [0, 7], **wrong})


def test_arrays_that_cannot_be_are_refused_by_the_saved_model(exported, images):
    nan, mask = np.full((2, 8, 8, 1), np.nan, np.float32), np.ones((1, 8, 8), bool)
    with pytest.raises(tf.errors.InvalidArgumentError, match="values must be finite"):
        exported.restore(nan, np.zeros_like(nan), seed=[0, 7])
    with pytest.raises(tf.errors.InvalidArgumentError, match="unknown must have a mask for each"):
        exported.inpaint(images[:2], mask, seed=[0, 7])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"cannot_restore": None}, "was made before images could be restored: export it again"),
        ({"cannot_restore": "it has no noise"}, "cannot restore images: it has no noise"),
        ({"basis": "HaarWavelet"}, "needs a model of the DCT, .* this one has HaarWavelet"),
    ],
)
def test_models_that_do_not_fit_say_why(changes, words, saved_model, files):
    other = files / "other"
    shutil.copytree(saved_model, other)
    info = json.loads((other / INFO).read_text()) | changes
    (other / INFO).write_text(json.dumps({k: v for k, v in info.items() if v is not None}))
    result = restore(other, files, **GOOD)
    assert result.returncode == 1 and re.search(words, result.stderr), result.stderr


def test_models_that_do_not_go_from_noise_to_images_have_no_such_functions():
    def reason(sampler, process, prior=None):
        return why_not(Denoiser(lambda z, t: z, process, prior=prior), sampler)

    assert reason(AncestralSampler(), blurring()) == ""
    assert reason(EDMSampler(), exploding(), NoisePrior()) == ""
    assert "begin in BlurredImages, not in noise" in reason(
        AncestralSampler(), ihdm(), BlurredImages()
    )
    assert "no noise" in reason(MomentumSampler(), cold())
    assert "1 to 50 steps" in reason(MomentumSampler(), cold(sigma=0.1))


GOOD = dict(task="deblur", sigma_blur=1.0, input="digits.npz", output="out.png")
WRONG = {
    "no task": (dict(task="debblur"), "--task=debblur is no task: did you mean deblur?"),
    "samples": (dict(samples=0), "--samples=0 must lie between 1"),
    "seed": (dict(seed=-1), "--seed=-1 must be a whole number"),
    "blur": (dict(sigma_blur=0.0), "--sigma_blur=0.0 must be a number above 0"),
    "noise": (dict(noise=-0.1), "--noise=-0.1 must be a number at least 0"),
    "t": (dict(t=0.5), "--t does not go with --task=deblur"),
    "ending": (dict(output="out.jpg"), "out.jpg must end in .png or .npz"),
    "truth": (dict(degrade=True, truth="folder"), "leave out --truth"),
    "number": (dict(truth="folder"), "has 2 image(s), --input="),
    "size": (dict(input="large.png"), "large.png has 30x20 pixels, must have 8x8"),
    "absent": (dict(input="absent.png"), "absent.png does not exist"),
    "kind": (dict(input="notes.txt"), "notes.txt is of no known kind"),
    "broken": (dict(input="broken.png"), "broken.png is not a readable image"),
    "theirs": (dict(output="digits.npz", input="folder"), "is not replaced by samples, input"),
    "read": (dict(output="folder/out.png", input="folder"), "which is read: give another place"),
}
OTHERS = {
    "no blur": (dict(task="deblur"), "--task=deblur needs --sigma_blur (deblur: of the"),
    "again": (dict(task="vary", repeats=3), "--repeats does not go with --task=vary"),
    "never": (dict(task="deblur", sigma_blur=1, repeats=0), "--repeats=0 must lie between 1"),
    "large": (
        dict(task="superresolve", factor=2, input="folder"),
        "must have 4x4; --degrade takes originals",
    ),
    "far": (dict(task="vary", t=1.5), "--t=1.5 must be a number above 0, at most 1"),
    "factor": (dict(task="superresolve", factor=3, degrade=True), "--factor=3 does not divide"),
    "one": (dict(task="superresolve", factor=1), "--factor=1 must be a whole number, at least 2"),
    "no mask": (dict(task="inpaint"), "--task=inpaint needs --mask (inpaint: an image that is"),
    "black": (
        dict(task="inpaint", mask="black.png"),
        "--mask is all below 128: nothing is",
    ),
    "mask": (dict(task="inpaint", mask="large.png"), "has 30x20 pixels, the model's images 8x8"),
}


@pytest.mark.parametrize("name", [*WRONG, *OTHERS])
def test_mistakes_are_answered_in_words(name, saved_model, files):
    if name in WRONG:
        given, words = GOOD | WRONG[name][0], WRONG[name][1]
    else:
        given, words = dict(input="digits.npz", output="out.png") | OTHERS[name][0], OTHERS[name][1]
    before = sorted(os.listdir(files))
    result = restore(saved_model, files, **given)
    assert result.returncode == 1 and words in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(os.listdir(files)) == before


def test_a_label_is_obeyed(labelled_run, saved_model, files):
    of_classes = os.path.join(labelled_run, "saved_model")
    given = dict(GOOD, output="out.npz")

    def samples(**more):
        result = restore(of_classes, files, **given, **more)
        assert result.returncode == 0, result.stderr
        return np.load(files / "out.npz")["samples"]

    free, three, guided = samples(), samples(label=3), samples(label="3", guidance=2)
    assert (free != three).any() and (three != guided).any()
    model = load_saved_model(of_classes)
    image = np.zeros((2, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(
        model.vary(image, 1.0, seed=SEED, label=[3, 5]), model.sample(SEED, 2, label=[3, 5])
    )
    wrong = [
        (of_classes, dict(label="ten"), "'ten' is no class of this model"),
        (of_classes, dict(guidance=2), "--guidance=2.0 is of a label: give --label=CLASS"),
        (of_classes, dict(label=3, guidance=-1), "--guidance=-1.0 must be a number at least 0"),
        (saved_model, dict(label=3), "trained without labels"),
    ]
    for model, more, words in wrong:
        result = restore(model, files, **given, **more)
        assert result.returncode == 1 and words in result.stderr, result.stderr
