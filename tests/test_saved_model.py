"""The SavedModel in a process that cannot import bdm_tf."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import exporting, sample_files
from bdm_tf.evaluation.subjects import ShippedModel
from bdm_tf.saved_models import INFO, load_saved_model, model_info, warn_of_few_steps

SCRIPT = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        assert name.split(".")[0] != "bdm_tf", "bdm_tf was imported"
sys.meta_path.insert(0, Refuse())
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
def draw(num_images, first):
    return model.sample(seed=tf.constant([0, 7]), num_images=tf.constant(num_images),
                        num_steps=tf.constant(0), first=tf.constant(first)).numpy()
z = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
t = np.array([0.1, 0.5, 0.9], "float32")
np.savez(sys.argv[2], whole=draw(100, 0), first=draw(37, 0), second=draw(1, 37),
         third=draw(62, 38), middle=draw(4, 3),
         prediction=model.predict(z_t=z, t=t).numpy(),
         z_t=model.diffuse(x=np.tanh(z), t=t, eps=np.zeros_like(z)).numpy())
"""


def test_any_split_of_100_images_gives_the_same_bits(tmp_path, finished_run):
    saved_model = os.path.join(finished_run, "saved_model")
    output = str(tmp_path / "drawn.npz")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, saved_model, output], check=True, cwd=tmp_path, timeout=300
    )
    drawn = np.load(output)
    assert drawn["whole"].shape == (100, 8, 8, 1) and drawn["whole"].dtype == np.uint8
    parts = np.concatenate([drawn["first"], drawn["second"], drawn["third"]])
    np.testing.assert_array_equal(drawn["whole"], parts)
    np.testing.assert_array_equal(drawn["whole"][3:7], drawn["middle"])
    assert len(np.unique(drawn["whole"], axis=0)) > 90  # not one image over and over
    assert drawn["prediction"].shape == (3, 8, 8, 1) and drawn["z_t"].shape == (3, 8, 8, 1)


def test_saved_model_cli_runs_it(tmp_path, finished_run):
    saved_model = os.path.join(finished_run, "saved_model")
    cli = os.path.join(os.path.dirname(sys.executable), "saved_model_cli")
    inputs = "seed=[0,7];num_images=2"
    arguments = ["--tag_set", "serve", "--signature_def", "serving_default"]
    result = subprocess.run(
        [cli, "run", "--dir", saved_model, *arguments, "--input_exprs", inputs]
        + ["--outdir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert np.load(tmp_path / "images.npy").shape == (2, 8, 8, 1)


def test_keras_3_takes_the_network_as_a_layer(finished_run):
    if not hasattr(keras.layers, "TFSMLayer"):
        pytest.skip("Keras 2 has no TFSMLayer")
    path = os.path.join(finished_run, "saved_model")
    z, t = np.ones([2, 8, 8, 1], np.float32), np.float32([0.1, 0.9])
    layer = keras.layers.TFSMLayer(path, call_endpoint="predict")
    model = tf.saved_model.load(path)
    np.testing.assert_array_equal(layer(z, t=t), model.predict(z_t=z, t=t))


def test_samples_are_drawn_without_tensor_float_32(tmp_path, finished_run, monkeypatch):
    enabled, seen = tf.config.experimental.tensor_float_32_execution_enabled, []
    tf.config.experimental.enable_tensor_float_32_execution(True)  # TensorFlow's default

    def load_watched(path):
        model = load_saved_model(path)
        draw = model.sample
        model.sample = lambda **given: seen.append(enabled()) or draw(**given)
        return model

    monkeypatch.setattr(sample_files, "load_saved_model", load_watched)
    output = str(tmp_path / "images.npz")
    saved_model = os.path.join(finished_run, "saved_model")
    sample_files.sample_to_file(saved_model, output, num_images=2, seed=0, first=0, num_steps=1)
    assert seen and not any(seen) and enabled()


def test_images_are_drawn_a_chunk_at_a_time(tmp_path, finished_run, monkeypatch):
    saved_model, calls = os.path.join(finished_run, "saved_model"), []
    model = load_saved_model(saved_model)
    whole = model.sample(seed=[0, 7], num_images=9, first=2).numpy()
    draw = model.sample

    def watched(**given):
        calls.append((int(given["first"]), int(given["num_images"])))
        return draw(**given)

    model.sample = watched
    monkeypatch.setattr(sample_files, "load_saved_model", lambda _: model)
    output = str(tmp_path / "images.npz")
    sample_files.sample_to_file(saved_model, output, num_images=9, seed=7, first=2, num_steps=0)
    assert calls == [(2, 2), (4, 4), (8, 3)]
    np.testing.assert_array_equal(np.load(output)["images"], whole)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"seed": np.array([0, 2**31])}, r"seed must be two whole numbers from 0 to 2\^31 - 1"),
        ({"num_steps": np.int64(2**31)}, r"num_steps must be from 0 to 2\^31 - 1"),
        ({"first": 2**31 - 1, "num_images": 2}, "first \\+ num_images must be at most"),
    ],
)
def test_numbers_that_no_image_has_are_refused(wrong, words, finished_run):
    model = load_saved_model(os.path.join(finished_run, "saved_model"))
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        model.sample(**{"seed": [0, 7], "num_images": 1, **wrong})


def test_few_steps_of_a_model_that_predicts_eps_are_warned_of(finished_run, caplog):
    own = model_info(os.path.join(finished_run, "saved_model"))
    paper = own | {"parametrisation": "PredictEps", "num_steps": 250}
    bounded = paper | {"projection": "SpectralClip"}
    for info, num_steps in ((own, 1), (paper, 0), (paper, 250), (bounded, 10)):
        warn_of_few_steps(info, num_steps)
    assert not caplog.records
    warn_of_few_steps(paper, 10)
    assert "10 steps may be too few: this model samples in 250, predicts eps" in caplog.text
    warn_of_few_steps(paper | {"num_steps": 12}, 0)
    assert "12 steps may be too few: this model samples in 12" in caplog.text
    warn_of_few_steps(paper | {"sampler": "DDIMSampler", "num_steps": 50}, 0)
    assert "50 steps may be too few: this model samples in 50" in caplog.text


def test_few_steps_are_warned_of_in_an_evaluation_too(finished_run, caplog, tmp_path):
    path = shutil.copytree(os.path.join(finished_run, "saved_model"), tmp_path / "model")
    info = json.loads((path / INFO).read_text())
    (path / INFO).write_text(json.dumps(info | {"parametrisation": "PredictEps"}))
    ShippedModel(str(path), tf.distribute.get_strategy()).draw(4, 0, 1)
    assert "1 steps may be too few: this model samples in 3" in caplog.text


def test_what_is_no_image_or_time_is_refused_by_the_savedmodel(finished_run):
    model = tf.saved_model.load(os.path.join(finished_run, "saved_model"))
    x, t = np.zeros([2, 8, 8, 1], np.float32), [0.2, 0.7]
    wrong = [
        (model.predict, {"z_t": x, "t": [0.2, 1.5]}, "t must lie in"),
        (model.predict, {"z_t": x, "t": [0.2, np.nan]}, "t must lie in"),
        (model.predict, {"z_t": x, "t": [0.1, 0.2, 0.3]}, "as many entries"),
        (model.diffuse, {"x": x + 128.0, "t": t, "eps": x}, "uint8 images are divided"),
    ]
    for function, given, words in wrong:
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            function(**given)


@pytest.mark.parametrize(
    "values, name",
    [
        ({"train.data": "@TFDSImages()", "TFDSImages.name": "'cifar10'"}, "cifar10"),
        ({"train.data": "@ImageFolder()", "TFDSImages.name": "'cifar10'"}, "a folder of images"),
        (
            {
                "train.data": "@Downsampled()",
                "Downsampled.source": "@TFDSImages()",
                "TFDSImages.name": "'digits'",
            },
            "digits",
        ),
        (
            {"train.data": "@Downsampled()", "Downsampled.source": "@ImageFolder()"},
            "a folder of images",
        ),
    ],
)
def test_the_data_set_is_the_one_that_was_trained_on(values, name):
    assert exporting._data_set(values) == name
