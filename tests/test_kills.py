"""kill -9, and disks that are full, at any moment: nothing that was saved is lost."""

import glob
import os
import random
import re
import signal
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT, metrics, saved_values
from tests.forks import forks

pytestmark = pytest.mark.slow

STEPS = 100


@pytest.fixture(scope="module")
def start(digits_dir):
    """Starts a short training, whose files have at most `limit` bytes; returns its process id."""

    def starts(workdir, limit=""):
        script = os.path.join(ROOT, "tests", "small_training.py")
        steps = f"train.num_steps = {STEPS}"
        return forks().start([sys.executable, script, digits_dir, workdir, limit, steps])

    return starts


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    return finished(start, str(tmp_path_factory.mktemp("kills") / "whole"))


def finished(start, workdir):
    """Gives a run the time to end, and returns its workdir."""
    start(workdir)
    result = forks().ending()
    assert result.returncode == 0, result.stderr[-3000:]
    return workdir


def whole_checkpoints(workdir):
    names = glob.glob(os.path.join(workdir, "checkpoints", "ckpt-*.index"))
    return {int(name.split("-")[-1].split(".")[0]) for name in names}


def newest(workdir):
    return max(whole_checkpoints(workdir), default=0)


def wait_for_checkpoint(pid, workdir, step):
    """Returns when a run has saved a step, or is no more."""
    while newest(workdir) < step and os.path.exists(f"/proc/{pid}"):
        time.sleep(0.005)  # looks again; what is waited for is the file


def assert_same_run(expected, found, message):
    a, b = saved_values(expected), saved_values(found)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=f"{name} {message}")
    assert metrics(expected) == metrics(found), message
    left = [sorted(os.listdir(os.path.join(path, "checkpoints"))) for path in (expected, found)]
    assert left[0] == left[1], message
    assert not glob.glob(os.path.join(found, "*.partial"))
    assert sorted(os.listdir(expected)) == sorted(os.listdir(found)), message


def test_kills_at_random_moments_change_nothing(start, undisturbed, tmp_path):
    workdir, moments = str(tmp_path / "killed"), []
    for i in range(20):
        before = newest(workdir)
        pid = start(workdir)
        if i % 3 == 2:  # while it starts: it restores, tidies up, builds
            moments.append(random.uniform(0, 2))
        else:  # most of what it does then is saving
            wait_for_checkpoint(pid, workdir, before + 1)
            moments.append(random.uniform(0, 0.1))
        time.sleep(moments[-1])  # the moment is what is tried
        os.kill(pid, signal.SIGKILL)
        ended = forks().ending()
        status, err = ended.returncode, ended.stderr
        assert status in (-signal.SIGKILL, 0), (err[-3000:], moments)
        assert newest(workdir) >= before, moments
        assert i % 3 == 2 or newest(workdir) > before or before == STEPS, (err[-3000:], moments)
        # The newest can be read, whether or not TensorFlow's `checkpoint` file names it by now.
        if newest(workdir):
            for name, value in saved_values(workdir, f"ckpt-{newest(workdir)}").items():
                assert np.isfinite(value).all(), (name, moments)
    finished(start, workdir)
    assert_same_run(undisturbed, workdir, moments)


def largest(workdir, pattern):
    """Bytes of a run's largest file of a kind."""
    return max(map(os.path.getsize, glob.glob(os.path.join(workdir, pattern))))


def limits(workdir):
    """For each case of `FULL`, a size that only files of its kind exceed at that time."""
    saved, logged = largest(workdir, "checkpoints/ckpt-*"), largest(workdir, "logs/events*")
    model = largest(workdir, "saved_model/*.pb")
    assert largest(workdir, "config.gin") < saved < logged < model
    return {
        "at the start": 10,
        "checkpoint": saved - 1,
        "metrics": (saved + logged) // 2,
        "SavedModel": (logged + model) // 2,
    }


FULL = {
    "at the start": (r"cannot be written to: .*trainer\.json", 0),
    "checkpoint": (r"cannot be written to: .*/ckpt-2_temp/", 0),
    "metrics": (r"cannot be written to: .*/events\.out", 1),
    "SavedModel": (r"SavedModel cannot be written to .*/saved_model", STEPS),
}


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(case, start, undisturbed, tmp_path):
    message, saved = FULL[case]
    limit = limits(undisturbed)[case]  # no file may grow further, as on a disk that is full
    workdir = str(tmp_path / "run")
    start(workdir, limit=limit)
    ended = forks().ending()
    status, err = ended.returncode, ended.stderr
    assert status == 1 and "Traceback" not in err, err[-3000:]
    last = err.splitlines()[-1]
    assert re.search(message, last) and re.search("[Mm]ake room", last), last
    assert not glob.glob(os.path.join(workdir, "*.partial"))
    there = whole_checkpoints(workdir)
    assert newest(workdir) >= saved and len(there) == min(3, newest(workdir))
    for step in there:
        saved_values(workdir, f"ckpt-{step}")
    finished(start, workdir)
    assert_same_run(undisturbed, workdir, last)
