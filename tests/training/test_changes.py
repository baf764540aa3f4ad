"""A run that goes on with other settings or images: if it is asked to, and noted."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from bdm_tf import config
from bdm_tf.data import ImageFolder, InMemoryImages
from bdm_tf.exporting import export
from bdm_tf.history import History, TrainingImages, read_history
from bdm_tf.model import build_sample_settings, load_model
from bdm_tf.saved_models import model_info
from bdm_tf.system.errors import UserError
from bdm_tf.training import loop  # noqa: F401, for gin
from bdm_tf.training.workdir import Workdir
from tests.conftest import command, metrics, run, train_command

OPTIMIZER = "train.optimizer = @keras.optimizers.Adam()\n"


def test_settings_change_if_asked_to_and_are_noted(finished_run, digits_dir, tmp_path):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    changed = ["train.num_steps = 16", "train.learning_rate = 1e-5", "train.batch_size = 4"]
    refused = run(train_command(workdir, digits_dir, *changed))
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "add --allow_changes to go on from here with these" in refused.stderr
    arguments = train_command(workdir, digits_dir, *changed, extra=["--allow_changes"])
    done = run(arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resuming at step 12 of 16" in done.stdout
    names = {"train.learning_rate": ["0.002", "1e-05"], "train.batch_size": ["8", "4"]}
    assert read_history(str(workdir)).changes == [{"step": 12, "changed": names}]
    assert model_info(str(workdir / "saved_model"))["changes"][0]["changed"] == names
    assert metrics(workdir)[:4] == metrics(finished_run)[:4]
    assert metrics(workdir)[-1]["learning_rate"] == pytest.approx(1e-5 * 16 / 100)  # warming up
    again = run(arguments[:-1])  # what was changed is what the run has now
    assert again.returncode == 0 and len(read_history(str(workdir)).changes) == 1


@pytest.mark.parametrize(
    "before, after, can_change",
    [
        ("train.flip = False", "train.flip = True", True),
        ("keras.optimizers.Adam.beta_1 = 0.9", "keras.optimizers.Adam.beta_1 = 0.8", True),
        ("keras.optimizers.Adam.amsgrad = False", "keras.optimizers.Adam.amsgrad = True", False),
        ("UNet.channels = 8", "UNet.channels = 16", False),
    ],
)
def test_what_checkpoints_hold_cannot_be_changed(before, after, can_change, tmp_path):
    files = Workdir(str(tmp_path))
    files.claim(f"{OPTIMIZER}{before}\n")
    with pytest.raises(UserError) as refused:
        files.claim(f"{OPTIMIZER}{after}\n")
    assert ("--allow_changes" in str(refused.value)) == can_change
    if can_change:
        files.claim(f"{OPTIMIZER}{after}\n", step=7, allow_changes=True)
        assert read_history(str(tmp_path)).changes[0]["step"] == 7
    else:
        with pytest.raises(UserError, match="another configuration"):
            files.claim(f"{OPTIMIZER}{after}\n", allow_changes=True)
    files.close()


def test_other_images_are_refused_unless_asked_for(tmp_path):
    files = Workdir(str(tmp_path))
    old, new = TrainingImages(10, "a" * 64), TrainingImages(11, "b" * 64)
    files.claim("a.b = 1\n")  # by version 0.1.0
    files.claim("a.b = 1\n", old)
    with pytest.raises(UserError, match="10 images .a+. there, 11 images .b+. here"):
        files.claim("a.b = 1\n", new)
    files.claim("a.b = 1\n", new, step=8, allow_changes=True)
    files.claim("a.b = 1\n", new)
    files.forget_after(4)  # the checkpoint of step 8 turned out to be broken
    assert read_history(str(tmp_path)) == History(
        new, [{"step": 4, "changed": {"images": [str(old), str(new)]}}], "a.b = 1\n"
    )
    for content in ('{"images"', '{"images": null, "changes": [1]}'):
        (tmp_path / "history.json").write_text(content)
        with pytest.raises(UserError, match="history.json is damaged: move it away"):
            files.claim("a.b = 1\n", new)
    files.close()


def test_images_are_known_again_wherever_they_lie(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(4):
        (tmp_path / "a" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a" / str(i % 2) / f"{i}.png")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")

    def key(folder, **options):
        return ImageFolder(8, **options).load(str(tmp_path / folder))[0].source_key()

    known = key("a")
    assert key("elsewhere") == key("a", max_memory_gb=0.0) == known
    shutil.move(tmp_path / "a" / "0" / "0.png", tmp_path / "a" / "1" / "0.png")
    assert key("a") != known
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "1" / "3.png")
    assert key("elsewhere") != known
    (tmp_path / "elsewhere" / "2.png").symlink_to("nowhere")
    images, _ = ImageFolder(np.int64(8)).load(str(tmp_path / "elsewhere"), "skip")
    assert images.num_images == 4 and images.source_key()
    array = np.zeros([3, 4, 4, 1], np.uint8)
    assert InMemoryImages(array).source_key() != InMemoryImages(array + 1).source_key()


@pytest.mark.parametrize("script", ["export.py", "evaluate.py", "figures.py", "train.py"])
def test_a_configuration_that_was_edited_is_refused_by_every_command(
    script, finished_run, digits_dir, tmp_path
):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    text = (workdir / "config.gin").read_text()
    edited = text.replace("sigma_blur_max = 4.0", "sigma_blur_max = 10.0")
    assert edited != text
    (workdir / "config.gin").write_text(edited)
    arguments = {
        "export.py": [f"--export_dir={tmp_path}/model"],
        "evaluate.py": ["--gin_file=gin/eval/digits.gin", f"--data_dir={digits_dir}"],
        "figures.py": [f"--output={tmp_path}/f.png", "--figure=snr"],
    }
    result = run(
        train_command(workdir, digits_dir)
        if script == "train.py"
        else command(script, f"--workdir={workdir}", *arguments[script])
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "config.gin was edited" in result.stderr
    assert "sigma_blur_max: 4.0 in training, 10.0 now" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_model_keeps_its_own_settings(finished_run, tmp_path):
    other = shutil.copytree(finished_run, tmp_path / "other")
    text = (other / "config.gin").read_text()
    (other / "config.gin").write_text(text.replace("num_steps = 3", "num_steps = 5"))
    config.parse_text("train.batch_size = 77\n")
    first, step = load_model(finished_run)
    second, _ = load_model(other)
    assert build_sample_settings(first).num_steps == 3
    assert build_sample_settings(second).num_steps == 5
    export(first, step, str(tmp_path / "exported"))
    with open(os.path.join(tmp_path, "exported", "assets.extra", "model_info.json")) as file:
        info = json.load(file)
    assert info["num_steps"] == 3 and info["config"]["sample.num_steps"] == "3"
    assert info["config"]["export_saved_model.chunk_size"] == "4" and info["changes"] == []
    assert config.operative_text() == "train.batch_size = 77\n"
