"""The models that the repository carries."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.saved_models import model_info
from tests.conftest import ROOT, command, run

CIFAR10 = os.path.join(ROOT, "pretrained", "cifar10")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixteen of ten evaluations each, by the README's command."""
    output = str(tmp_path_factory.mktemp("drawn") / "images.npz")
    arguments = [f"--saved_model={CIFAR10}", f"--output={output}", "--num_images=16"]
    result = run(command("sample.py", *arguments, "--num_steps=10"))
    assert result.returncode == 0, result.stderr[-2000:]
    return np.load(output)["images"]


def test_its_samples_have_the_levels_and_contrast_of_photographs(images):
    assert images.shape == (16, 32, 32, 3) and images.dtype == np.uint8
    each = images.reshape(16, -1).astype(float)
    assert 90 < each.mean() < 150  # CIFAR-10's: 122
    assert 45 < each.std() < 80  # 64
    assert each.std(axis=1).min() > 12  # nothing is flat
    steps = np.abs(np.diff(images.astype(float), axis=2)).mean()
    assert 5 < steps < 30  # between neighbours: 14; of noise 85
    assert len(np.unique(each.round(-1), axis=0)) == 16


def test_it_draws_with_tensorflow_alone(images):
    code = (
        "import sys, tensorflow as tf\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "drawn = model.sample(seed=[0, 0], num_images=2, num_steps=10).numpy()\n"
        "assert not [m for m in sys.modules if m.startswith('bdm_tf')]\n"
        "print(drawn.astype(float).mean((1, 2, 3)).tolist())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, CIFAR10], capture_output=True, text=True, timeout=400
    )
    assert result.returncode == 0, result.stderr[-2000:]
    means = images[:2].astype(float).mean((1, 2, 3))
    np.testing.assert_allclose(json.loads(result.stdout), means, atol=1.0)


@pytest.mark.parametrize("name, blur", [("cifar10", 20.0), ("cifar10_no_blur", 0.0)])
def test_each_says_what_it_is_and_is_small(name, blur):
    folder = os.path.join(ROOT, "pretrained", name)
    info = model_info(folder)
    assert float(info["config"]["BlurSchedule.sigma_blur_max"]) == blur
    assert info["image_shape"] == [32, 32, 3] and info["data_set"] == "cifar10"
    assert info["chunk_size"] == 16  # by which launch/sample.py draws
    assert info["step"] == int(info["config"]["train.num_steps"])
    files = [os.path.join(where, f) for where, _, names in os.walk(folder) for f in names]
    assert sum(map(os.path.getsize, files)) < 12 * 2**20
    weights = tf.train.load_checkpoint(os.path.join(folder, "variables", "variables"))
    shapes = weights.get_variable_to_shape_map()
    assert sum(np.prod(s) for name, s in shapes.items() if name.startswith("weights/")) < 2e6
