"""Images with labels: what the network is told, guidance, and what a user may ask for."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.classes import Classes, class_number, in_turn
from bdm_tf.denoiser import Denoiser
from bdm_tf.model import build_sample_settings, load_model
from bdm_tf.parametrisations import PredictEps, PredictPreconditioned, PredictV, PredictX
from bdm_tf.sampling import AncestralSampler, AngleSampler, DDIMSampler, DPMSolver2MSampler
from bdm_tf.saved_models import chosen_classes
from bdm_tf.spectrum import Spectrum
from bdm_tf.system.errors import UserError
from tests import toy_models
from tests.conftest import FASTER, command, run, saved_values, train_command
from tests.test_places import refused

TIMES = tf.constant(toy_models.TIMES)
LABEL = tf.constant([0, 1, 1, 0])
SPECTRUM = Spectrum(np.full((4, 4, 2), 0.1), np.full((4, 4, 2), 0.3))


class OfTwoClasses:
    """A network whose answer depends on the class; 2 is none."""

    num_classes = 2

    def __call__(self, z_t, t, label):
        factor = tf.gather([1.0, -0.5, 0.3], label)[:, None, None, None]
        return factor * toy_models.small_network(z_t, t)


def of_two_classes(parametrisation=None):
    process = toy_models.blurring()
    return Denoiser(
        OfTwoClasses(), process, parametrisation=parametrisation or PredictX(), spectrum=SPECTRUM
    )


@pytest.mark.parametrize(
    "parametrisation",
    [PredictEps(), PredictX(), PredictV(), PredictPreconditioned(scale_input=True)],
    ids=lambda p: type(p).__name__,
)
def test_guidance_is_that_of_the_noise_and_of_the_image(parametrisation):
    z, _ = toy_models.draw()
    denoiser = of_two_classes(parametrisation)
    without = denoiser.given(tf.fill([4], 2))(z, TIMES)
    conditional = denoiser.given(LABEL)(z, TIMES)
    guided = denoiser.given(LABEL, 1.7)(z, TIMES)
    for free, bound, found in zip(without, conditional, guided):
        scale = np.abs(bound).max()
        np.testing.assert_allclose(
            found / scale, (free + 1.7 * (bound - free)) / scale, rtol=0, atol=2e-6
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (([0, 3],), r"label=\[0, 3\] must lie in \[0, 2\], where 2 is none"),
        (([-1],), r"label=\[-1\] must lie in \[0, 2\]"),
        ((1,), r"label must be int32 \[B\], one an image, not int32 \[\]"),
        ((["1"],), "label must be int32 .* not string"),
        (([1], float("nan")), "guidance=nan must be"),
        (([1], -2.0), "guidance=-2.0 must be"),
    ],
)
def test_labels_and_guidance_that_cannot_be_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        of_two_classes().given(*given)


def test_a_network_without_labels_takes_none():
    network = OfTwoClasses()
    network.num_classes = None
    with pytest.raises(UserError, match="the model was trained without labels"):
        Denoiser(network, toy_models.blurring()).given([1])


def test_guidance_of_one_is_none_and_of_zero_is_the_model_without_labels():
    z, _ = toy_models.draw()
    denoiser = of_two_classes()
    conditional, unlabelled = (denoiser.given(g)(z, TIMES)[1] for g in (LABEL, tf.fill([4], 2)))
    for guidance in (1.0, tf.constant(1.0)):
        found = denoiser.given(LABEL, guidance)(z, TIMES)[1]
        np.testing.assert_array_equal(found, conditional)
    found = denoiser.given(LABEL, tf.constant(0.0))(z, TIMES)[1]
    np.testing.assert_allclose(found, unlabelled, rtol=1e-5, atol=1e-6)


def test_guidance_keeps_to_its_interval():
    z, _ = toy_models.draw()
    denoiser = of_two_classes()
    found = denoiser.given(LABEL, 3.0, (0.1, 0.3))(z, TIMES)[1]
    inside = (TIMES >= 0.1) & (TIMES <= 0.3)
    for i, is_inside in enumerate(inside):
        expected = denoiser.given(LABEL, 3.0 if is_inside else 1.0)(z, TIMES)[1]
        np.testing.assert_allclose(found[i], expected[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "sampler",
    [AncestralSampler(), DDIMSampler(), DPMSolver2MSampler(), AngleSampler()],
    ids=lambda s: type(s).__name__,
)
def test_samples_are_those_of_their_class(sampler):
    """A network that knows the images of two classes, which are single ones."""
    process = toy_models.blurring()
    images = tf.constant(toy_models.draw()[0][:3])

    class Knowing:
        num_classes = 2

        def __call__(self, z_t, t, label):
            return tf.gather(images, label)

    denoiser = Denoiser(Knowing(), process, parametrisation=PredictX(), spectrum=SPECTRUM)
    given = dict(shape=(4, 4, 4, 2), seed=[0, 1], num_steps=5)
    found = sampler(denoiser.given(LABEL, 1.0), **given)
    np.testing.assert_allclose(found, tf.gather(images, LABEL), atol=1e-5)
    guided = sampler(denoiser.given(LABEL, 2.0, (0.0, 0.5)), **given)
    expected = 2.0 * tf.gather(images, LABEL) - images[2]
    np.testing.assert_allclose(guided, expected, atol=1e-5)


def test_classes_are_drawn_as_the_training_images_have_them():
    classes = Classes(("a", "b", "c"), (10, 0, 30), 0.1)
    drawn = classes.draw(tf.constant([0, 5]), 0, 2000).numpy()
    share = np.bincount(drawn, minlength=3) / 2000
    np.testing.assert_allclose(share, [0.25, 0.0, 0.75], atol=4 * np.sqrt(0.19 / 2000))
    np.testing.assert_array_equal(classes.draw(tf.constant([0, 5]), 90, 10), drawn[90:100])


def test_a_row_of_each_class():
    assert in_turn(np.arange(6), 6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert in_turn(np.arange(7), 7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert in_turn(np.arange(2), 2, 3).tolist() == [0, 1]


def test_a_class_is_known_by_name_and_by_number():
    names = ["plane", "car", "1"]
    assert [class_number(text, names) for text in ("car", "0", "1")] == [1, 0, 2]
    with pytest.raises(UserError, match="'plan' is no class .* from 0 to 2 .* such as plane"):
        class_number("plan", names)
    for wrong in ("-1", "3", "٣", ""):
        with pytest.raises(UserError, match="is no class of this model"):
            class_number(wrong, names)
    assert class_number("2", ["1", "10", "2"]) == 2
    with pytest.raises(UserError, match="'0' is no class .*: give a name, such as 1, 10, 2"):
        class_number("0", ["1", "10", "2"])


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(labelled_run, digits_dir, tmp_path):
    for steps in (4, 12):
        settings = [*FASTER, f"train.num_steps = {steps}", "sample.num_steps = 1"]
        trained = train_command(tmp_path, digits_dir, *settings, gin_file="digits_labels.gin")
        result = run(trained)
        assert result.returncode == 0, result.stderr[-3000:]
    expected, found = saved_values(labelled_run), saved_values(str(tmp_path))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def test_the_savedmodel_draws_by_label_what_the_model_draws(labelled_run):
    saved = tf.saved_model.load(os.path.join(labelled_run, "saved_model"))
    model, _ = load_model(labelled_run)
    settings = build_sample_settings(model)
    seed, label = [0, 7], [3, 0, 9, -1, 5, 5]
    found = saved.sample(seed=seed, num_images=6, label=label, guidance=1.5)
    drawn = settings.draw(
        model, seed=tf.constant(seed), first=0, count=6, label=tf.constant(label), guidance=1.5
    )
    levels = np.clip(np.round((drawn.numpy() + 1) * 127.5), 0, 255)
    assert np.abs(found.numpy() - levels).max() <= 1  # by rounding
    alone = saved.sample(seed, 1, 0, 2, [9], 1.5)
    np.testing.assert_array_equal(alone, found[2:3])
    any_class = saved.sample(seed, 6)
    classes = model.classes.draw(tf.constant(seed), 0, 6)
    np.testing.assert_array_equal(any_class, saved.sample(seed, 6, label=classes))
    of_3 = saved.sample(seed, 6, label=[3])
    assert (of_3.numpy() != any_class.numpy()).any()
    np.testing.assert_array_equal(of_3, saved.sample(seed, 6, label=3))
    wrong = [({"label": [10]}, "at most 9"), ({"label": [-2]}, "at least -1")]
    wrong += [({"label": [1, 2]}, "1 or num_images"), ({"guidance": -1.0}, "not be negative")]
    for given, words in wrong:
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            saved.sample(seed, 6, **given)
    z_t = np.zeros([1, 8, 8, 1], np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="label must be at most 9"):
        saved.predict(z_t=z_t, t=[0.5], label=[11])
    without = saved.predict(z_t=z_t, t=[0.5])
    for none in (-1, 10):
        np.testing.assert_array_equal(without, saved.predict(z_t=z_t, t=[0.5], label=none))
    assert (saved.predict(z_t=z_t, t=[0.5], label=[3]).numpy() != without.numpy()).any()


def test_sample_takes_names_and_draws_a_row_a_class(labelled_run, finished_run, tmp_path):
    def sample(folder, *flags):
        saved = os.path.join(folder, "saved_model")
        output = f"--output={tmp_path / 'drawn.npz'}"
        return command("sample.py", f"--saved_model={saved}", output, *flags)

    result = run(sample(labelled_run, "--label=each", "--num_images=20", "--guidance=2"))
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(tmp_path / "drawn.npz") as drawn:
        assert drawn["images"].shape == (20, 8, 8, 1)
    wrong = [
        (["--label=ten"], "'ten' is no class of this model"),
        (["--label=each", "--num_images=9"], "draws 10 classes, more than 9 images"),
        (["--guidance=-1"], "--guidance=-1.0 must be a number at least 0, at most 100"),
    ]
    for flags, words in wrong:
        assert words in refused(sample(labelled_run, *flags))
    assert "trained without labels" in refused(sample(finished_run, "--label=3"))


def test_a_class_of_no_training_image_is_not_drawn():
    info = {"class_names": ["a", "b"], "class_counts": [5, 0], "label_dropout": 0.1}
    assert chosen_classes(info, "a", None, 2).tolist() == [0, 0]
    with pytest.raises(UserError, match="--label=b: no training image was of this class"):
        chosen_classes(info, "b", None, 2)


def test_evaluation_is_of_classes(labelled_run, digits_dir, tmp_path):
    output = tmp_path / "results.json"
    parameters = [
        "evaluate.label = '3'",
        "evaluate.guidance = 0.5",
        "evaluate.evaluators = [@FrechetDistance, @LabelAccuracy, @EvalLoss]",
    ]

    def evaluate(*parameters, folder=labelled_run):
        return command(
            "evaluate.py",
            f"--workdir={folder}",
            "--gin_file=gin/eval/digits.gin",
            "--num_images=50",
            f"--data_dir={digits_dir}",
            f"--output={output}",
            "--overwrite",
            f"--cache_dir={tmp_path}",
            *(f"--gin_param={p}" for p in parameters),
        )

    result = run(evaluate(*parameters))
    assert result.returncode == 0, result.stderr[-3000:]
    results = json.loads(output.read_text())
    assert results["protocol"]["label"] == "3" and results["protocol"]["guidance"] == 0.5
    assert results["figures"]["fd_pixels_train"]["num_real"] == 183  # scikit-learn's description
    assert results["figures"]["loss"]["value"] > 0  # of that class's evaluation images
    assert "one class alone" in results["skipped"]["label_accuracy"]
    result = run(evaluate("evaluate.evaluators = [@LabelAccuracy, @EvalLoss]"))
    assert result.returncode == 0, result.stderr[-3000:]
    figures = json.loads(output.read_text())["figures"]
    accuracy = figures["label_accuracy"]
    assert accuracy["of_real"] > 0.97 and "loss" in figures
    assert set(accuracy["of_class"]) <= set("0123456789") and len(accuracy["of_class"]) > 5
    assert all(0 <= share <= 1 for share in accuracy["of_class"].values())
    assert "'30' is no class" in refused(evaluate("evaluate.label = 30"))


def test_models_without_labels_are_asked_for_none(finished_run):
    model, _ = load_model(finished_run, choose=None)
    assert model.classes is None

    def guide():
        from bdm_tf import config

        config.bind("sample.guidance", 2.0)

    guided, _ = load_model(finished_run, choose=guide)
    with pytest.raises(UserError, match="sample.guidance needs a model of images with labels"):
        build_sample_settings(guided)
