"""What one stack of TensorFlow and Keras wrote, used by the other."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import run, run_afresh, saved_values, train_command

OTHER = os.environ.get("BDM_OTHER_PYTHON")
pytestmark = pytest.mark.skipif(
    not OTHER, reason="BDM_OTHER_PYTHON names no interpreter with the other stack"
)
WEIGHTS = "weights/"  # of the checkpoint's names; the averages' are ema_weights/
MORE = ["train.num_steps = 16"]
LOAD = """
import sys, numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
z = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
t = np.array([0.1, 0.5, 0.9], "float32")
images = model.sample(seed=tf.constant([0, 7]), num_images=tf.constant(5),
                      num_steps=tf.constant(0), first=tf.constant(0))
np.savez(sys.argv[2], images=images, prediction=model.predict(z_t=z, t=t),
         z_t=model.diffuse(x=np.tanh(z), t=t, eps=z))
"""


def on_the_other(arguments):
    result = run_afresh([OTHER, *arguments[1:]])
    assert result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def others_run(tmp_path_factory, digits_dir):
    """The run of `finished_run`, made by the other stack."""
    workdir = str(tmp_path_factory.mktemp("other") / "whole")
    on_the_other(train_command(workdir, digits_dir))
    return workdir


@pytest.fixture(params=["here", "there"])
def made(request):
    """A run made by this stack, or by the other."""
    return request.getfixturevalue({"here": "finished_run", "there": "others_run"}[request.param])


def test_both_stacks_train_alike(finished_run, others_run):
    here, there = saved_values(finished_run), saved_values(others_run)
    assert here.keys() == there.keys()
    for name in (name for name in here if WEIGHTS in name):
        np.testing.assert_allclose(here[name], there[name], atol=1e-4, err_msg=name)


def test_a_saved_model_is_the_same_to_both(tmp_path, made):
    saved_model = os.path.join(made, "saved_model")
    found = []
    for python in (sys.executable, OTHER):
        output = str(tmp_path / f"{len(found)}.npz")
        subprocess.run([python, "-c", LOAD, saved_model, output], check=True, timeout=400)
        found.append(np.load(output))
    here, there = found
    np.testing.assert_allclose(here["prediction"], there["prediction"], atol=1e-5)
    np.testing.assert_allclose(here["z_t"], there["z_t"], atol=1e-5)
    difference = np.abs(here["images"].astype(int) - there["images"].astype(int))
    assert difference.max() <= 1


def test_each_goes_on_with_the_other_s_run(tmp_path, made, digits_dir):
    copies = []
    for name, launch in (("here", run), ("there", on_the_other)):
        copies.append(shutil.copytree(made, tmp_path / name))
        result = launch(train_command(copies[-1], digits_dir, *MORE))
        assert result.returncode == 0, result.stderr[-3000:]
        assert "resuming at step 12" in result.stdout
    here, there = map(saved_values, copies)
    assert here.keys() == there.keys()
    for name in here:  # the optimizer's moments among them
        np.testing.assert_allclose(here[name], there[name], atol=1e-4, err_msg=name)


def test_a_run_of_keras_s_adamw_goes_on_over_there(tmp_path, digits_dir):
    flags = ["train.optimizer = @keras.optimizers.AdamW()", "train.eval_every = 0"]
    few = [*flags, "train.num_steps = 4"]
    result = run(train_command(tmp_path / "here", digits_dir, *few))
    assert result.returncode == 0, result.stderr[-3000:]
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    more = [*flags, "train.num_steps = 8"]
    result = run(train_command(tmp_path / "here", digits_dir, *more))
    assert result.returncode == 0, result.stderr[-3000:]
    on_the_other(train_command(tmp_path / "there", digits_dir, *more))
    here, there = saved_values(tmp_path / "here"), saved_values(tmp_path / "there")
    for name in here:
        np.testing.assert_allclose(here[name], there[name], atol=1e-4, err_msg=name)
