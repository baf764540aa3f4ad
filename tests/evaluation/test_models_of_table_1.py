"""Models of Table 1, and those since, by their commands: trained, resumed, shipped, scored."""

import os
import sys

import numpy as np
import pytest

from tests.conftest import command, run, train_command
from tests.evaluation.conftest import load, succeeded, values

pytestmark = pytest.mark.slow

PREVIEWS = ["train.sample_every = 6", "train.sample_images = 9", "train.sample_num_steps = 3"]
# Those that no other test trains, and what a model of K steps needs for a tiny run of three.
MODELS = {
    "ihdm": ["LogBlur.num_steps = 3"],
    "ihdm_gaussian": ["LogBlur.num_steps = 3"],
    "cold_diffusion": ["CumulativeBlur.num_steps = 3"],
    "soft_diffusion": [],
    "edm": [],
    "progressive_deblurring": [],
    "gddim": [],
    "relay_diffusion": [],
    "power_law_noise": [],
    "equal_snr": [],  # whose process knows the training images' spectrum
    "warm_diffusion": [],  # whose network has two heads
}
NO_BITS = ("ihdm", "ihdm_gaussian", "cold_diffusion")
STEPS = {"ihdm": (3, 3), "cold_diffusion": (1, 3)}
STEPS |= dict.fromkeys(("edm", "relay_diffusion", "warm_diffusion"), (2, None))
BEGIN_IN_BLUR = (*NO_BITS, "soft_diffusion", "relay_diffusion")
ALONE = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        assert name.split(".")[0] != "bdm_tf", name
sys.meta_path.insert(0, Refuse())
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
def draw(num_images, first):
    return model.sample(seed=tf.constant([0, 7]), num_images=tf.constant(num_images),
                        num_steps=tf.constant(0), first=tf.constant(first)).numpy()
np.savez(sys.argv[2], whole=draw(9, 0), part=draw(4, 3))
"""


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory, digits_dir):
    """A tiny run of a model, stopped half-way and resumed: its name and its workdir."""
    name = request.param
    workdir = str(tmp_path_factory.mktemp(name) / "run")
    for num_steps in (6, 12):
        parameters = [*MODELS[name], *PREVIEWS, f"train.num_steps = {num_steps}"]
        arguments = train_command(
            workdir, digits_dir, *parameters, gin_file=os.path.join("digits", f"{name}.gin")
        )
        result = succeeded(arguments)
    assert "resuming at step 6 of 12" in result.stdout
    return name, workdir


def test_its_saved_model_draws_alone_and_any_part_of_a_seed(trained, tmp_path):
    name, workdir = trained
    output = str(tmp_path / "drawn.npz")
    path = os.path.join(workdir, "saved_model")
    succeeded([sys.executable, "-c", ALONE, path, output])
    drawn = np.load(output)
    assert drawn["whole"].shape == (9, 8, 8, 1) and drawn["whole"].dtype == np.uint8
    np.testing.assert_array_equal(drawn["whole"][3:7], drawn["part"])
    assert len(np.unique(drawn["whole"], axis=0)) > 7
    assert os.path.exists(os.path.join(workdir, "samples", "step_00000012.png"))
    assert os.path.exists(f"{workdir}/prior.npz") == (name in BEGIN_IN_BLUR)
    assert name != "equal_snr" or os.path.exists(f"{workdir}/spectrum.npz")


def test_its_saved_model_says_what_another_number_of_steps_does(trained, tmp_path):
    name, workdir = trained
    path = os.path.join(workdir, "saved_model")
    info = load(os.path.join(path, "assets.extra", "model_info.json"))
    fewest, most = STEPS.get(name, (1, None))
    assert info["allowed_num_steps"] == [fewest, most]
    if most:
        output = f"--output={tmp_path / 'images.npz'}"
        result = run(command("sample.py", f"--saved_model={path}", output, "--num_steps=4"))
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert f"--num_steps=4: this model takes {info['other_num_steps']}" in result.stderr


def test_it_is_scored(trained, evaluate, tmp_path):
    name, workdir = trained
    own_steps = ["evaluate.num_steps = 0"]
    succeeded(evaluate(f"--workdir={workdir}", f"--output={tmp_path}/r.json", parameters=own_steps))
    results = load(f"{tmp_path}/r.json")
    assert all(np.isfinite(value) for value in values(results).values())
    assert results["protocol"]["num_steps"] == 3
    assert ("bits_per_dim" in results["skipped"]) == (name in NO_BITS)


def test_a_number_of_steps_that_is_not_the_models_is_refused_before_sampling(trained, evaluate):
    name, workdir = trained
    if name != "ihdm":
        pytest.skip("others take two steps")
    for subject in (f"--workdir={workdir}", f"--saved_model={workdir}/saved_model"):
        result = run(evaluate(subject, parameters=["evaluate.num_steps = 2"]))
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert "evaluate.num_steps" in result.stderr and "3 steps alone" in result.stderr
