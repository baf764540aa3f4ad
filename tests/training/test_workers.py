"""Two worker processes with TF_CONFIG: the steps of one process; one killed and started again."""

import os
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from tests.conftest import metrics, run, saved_values, train_command
from tests.workers import endings, start_workers, succeeded

pytestmark = pytest.mark.slow

SETTINGS = ["train.sample_every = 6", "train.sample_images = 3", "train.sample_num_steps = 2"]


def wait_for_step(worker, step):
    """Reads the chief's progress until it has come to a step; returns False if it ended before."""
    seen = b""
    while worker.poll() is None:
        seen += worker.stderr.read(1)
        shown = re.findall(rb" (\d+)/\d+ ", seen)
        if shown and int(shown[-1]) >= step:
            return True
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits_dir):
    workdir = str(tmp_path_factory.mktemp("workers") / "run")
    arguments = train_command(workdir, digits_dir, *SETTINGS, extra=["--strategy=multi_worker"])
    succeeded(start_workers(arguments, arguments))
    return workdir


def test_two_workers_take_the_steps_of_one_process(undisturbed, tmp_path, digits_dir):
    workdir = str(tmp_path / "one")
    result = run(train_command(workdir, digits_dir, *SETTINGS))
    assert result.returncode == 0, result.stderr[-3000:]
    one, two = saved_values(workdir), saved_values(undisturbed)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=2e-4, atol=1e-6, err_msg=name)
    for a, b in zip(metrics(workdir), metrics(undisturbed), strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    files = [sorted(os.listdir(os.path.join(path, "samples"))) for path in (workdir, undisturbed)]
    assert files[0] == files[1] == ["final.png", "step_00000006.png", "step_00000012.png"]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_other_and_both_go_on_to_the_same_bits(
    killed, undisturbed, tmp_path, digits_dir
):
    workdir = str(tmp_path / "disturbed")
    arguments = train_command(workdir, digits_dir, *SETTINGS, extra=["--strategy=multi_worker"])
    workers = start_workers(arguments, arguments)
    assert wait_for_step(workers[0], 6)
    workers[killed].kill()
    status, _, err = endings(workers)[1 - killed]
    if killed == 1:
        assert status == 75 and "Traceback" not in err, err[-3000:]
        assert "worker 0 lost another worker" in err and "start all of them again" in err
    else:  # without its coordinator TensorFlow may end a worker before it can say anything
        assert status in (75, -signal.SIGABRT), err[-3000:]
    succeeded(start_workers(arguments, arguments))
    whole, resumed = saved_values(undisturbed), saved_values(workdir)
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
    assert metrics(undisturbed) == metrics(workdir)


def images_with_a_damaged_one(folder):
    folder.mkdir()
    for i in range(9):
        Image.new("L", (12, 10), 20 * i).save(folder / f"{i}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


STREAMED = [
    "train.data = @ImageFolder()",
    "ImageFolder.image_size = 8",
    "ImageFolder.channels = 1",
    "ImageFolder.max_memory_gb = 0.0",
]
# The settings of both, what the chief's command begins with, and the reason.
FAULTS = {
    "another configuration": (
        ["train.num_steps = 20", "train.seed = 1"],
        [],
        "train.seed: 0 there",
    ),
    "a full disk": (["train.num_steps = 20"], ["prlimit", "--fsize=15000"], "cannot be written to"),
    "an image of the first worker": (STREAMED, [], "bad.png is not a readable image"),
    "an image of the second": (
        [*STREAMED, "train.seed = 1"],
        [],
        "bad.png is not a readable image",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_befalls_one_worker_ends_both_with_its_reason(case, undisturbed, tmp_path, digits_dir):
    settings, chiefs, reason = FAULTS[case]
    workdir, data_dir = str(tmp_path / "run"), digits_dir
    if "image" in case:
        data_dir = images_with_a_damaged_one(tmp_path / "images")
    else:
        shutil.copytree(undisturbed, workdir)
    arguments = train_command(workdir, data_dir, *settings, extra=["--strategy=multi_worker"])
    found = endings(start_workers([*chiefs, *arguments], arguments))
    shown = "\n".join(f"status {status}: {err[-3000:]}" for status, _, err in found)
    for status, _, err in found:
        assert status == 1 and "Traceback" not in err, shown
        assert reason in err[err.rindex("error: ") :], shown


def test_sigterm_to_one_worker_stops_both_at_one_step(tmp_path, digits_dir):
    workdir = str(tmp_path / "stopped")
    arguments = train_command(
        workdir, digits_dir, "train.num_steps = 1000000", extra=["--strategy=multi_worker"]
    )
    workers = start_workers(arguments, arguments)
    assert wait_for_step(workers[0], 1)
    workers[1].send_signal(signal.SIGTERM)
    stopped = [re.search(r"stopped at step (\d+)", out) for _, out, _ in check(endings(workers))]
    assert stopped[0].group(1) == stopped[1].group(1)
    path = os.path.join(workdir, "checkpoints", f"ckpt-{stopped[0].group(1)}.index")
    assert os.path.exists(path)


def check(found):
    for status, _, err in found:
        assert status == 128 + signal.SIGTERM, err[-3000:]
    return found


BAD_CLUSTERS = {
    "none": ("", "names no workers"),
    "no json": ("{cluster", "does not describe workers"),
    "no such task": (
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}',
        "it has no task",
    ),
}


@pytest.mark.parametrize("case", BAD_CLUSTERS)
def test_a_wrong_tf_config_is_explained(case, tmp_path, digits_dir, monkeypatch):
    text, message = BAD_CLUSTERS[case]
    monkeypatch.setenv("TF_CONFIG", text)
    result = run(train_command(tmp_path, digits_dir, extra=["--strategy=multi_worker"]))
    assert result.returncode == 1 and message in result.stderr
    assert '"task": {"type": "worker", "index": 0}' in result.stderr
    assert "Traceback" not in result.stderr
