"""Every model of Table 1 by its command: trained, resumed, shipped, sampled alone, scored."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import command, run, train_command
from tests.evaluation.conftest import load, succeeded, values

K_3 = ["train.sample_num_steps = 3"]
# What a model of K steps needs besides for the three steps of a tiny run.
MODELS = {
    "denoising_diffusion": [],
    "blurring_diffusion": [],
    "ihdm": ["LogBlur.num_steps = 3", *K_3],
    "ihdm_gaussian": ["LogBlur.num_steps = 3"],
    "cold_diffusion": ["CumulativeBlur.num_steps = 3", *K_3],
    "soft_diffusion": [],
}
NO_BOUND = {"ihdm", "ihdm_gaussian", "cold_diffusion"}
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
        parameters = [*MODELS[name], f"train.num_steps = {num_steps}", "train.sample_every = 6"]
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
    subprocess.run([sys.executable, "-c", ALONE, path, output], check=True, timeout=300)
    drawn = np.load(output)
    assert drawn["whole"].shape == (9, 8, 8, 1) and drawn["whole"].dtype == np.uint8
    np.testing.assert_array_equal(drawn["whole"][3:7], drawn["part"])
    assert len(np.unique(drawn["whole"], axis=0)) > 7
    assert os.path.exists(os.path.join(workdir, "samples", "step_00000012.png"))
    fitted = os.path.exists(os.path.join(workdir, "prior.npz"))
    assert fitted == (name not in ("denoising_diffusion", "blurring_diffusion"))


def test_its_saved_model_says_what_another_number_of_steps_does(trained, tmp_path):
    name, workdir = trained
    path = os.path.join(workdir, "saved_model")
    said = load(os.path.join(path, "assets.extra", "model_info.json"))["other_num_steps"]
    output = f"--output={tmp_path / 'images.npz'}"

    def sample(num_steps):
        arguments = [f"--saved_model={path}", output, f"--num_steps={num_steps}"]
        return run(command("sample.py", *arguments, "--num_images=2"))

    fewer, more = sample(2), sample(4)
    assert fewer.returncode == (1 if name == "ihdm" else 0), fewer.stderr[-2000:]
    assert more.returncode == (1 if name in ("ihdm", "cold_diffusion") else 0)
    for result, num_steps in ((fewer, 2), (more, 4)):
        if result.returncode:
            assert "Traceback" not in result.stderr
            assert f"--num_steps={num_steps}: this model takes {said}" in result.stderr


def test_it_is_scored_from_its_workdir_and_from_its_saved_model(trained, evaluate, tmp_path):
    name, workdir = trained
    own_steps = ["evaluate.num_steps = 0"]
    outputs = [f"--output={tmp_path}/{i}.json" for i in range(2)]
    succeeded(evaluate(f"--workdir={workdir}", outputs[0], parameters=own_steps))
    model = f"--saved_model={workdir}/saved_model"
    succeeded(evaluate(model, outputs[1], parameters=own_steps))
    first, second = (load(f"{tmp_path}/{i}.json") for i in range(2))
    assert np.isfinite(values(first)["loss"])
    assert ("bits_per_dim" in first["skipped"]) == (name in NO_BOUND)
    # Both draw the same images; batches of another size differ in float32's last digits.
    np.testing.assert_allclose(
        values(first)["fd_pixels_train"], values(second)["fd_pixels_train"], rtol=1e-3
    )
