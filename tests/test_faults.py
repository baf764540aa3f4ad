"""What may befall a run, and what is left of it; `docs/reliability.md` is the table."""

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from tests.conftest import ROOT, TINY, run, run_afresh, saved_values, train_command

pytestmark = pytest.mark.slow

# A network that is nearly nothing, saved after every step: most of a run is saving.
SMALLEST = ["UNet.channel_multipliers = (1,)", "train.eval_every = 0", "train.checkpoint_every = 1"]


def start(arguments):
    """Starts a command; `ending` has what it wrote to stderr (a pipe would fill and block it)."""
    errors = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=errors)
    process.errors = errors
    return process


def ending(process):
    """What a command wrote to stderr, once it has ended."""
    process.wait(timeout=300)
    with process.errors as file:
        file.seek(0)
        return file.read()


def wait_for_checkpoint(process, workdir, step):
    """Returns when a run has saved a step, or has ended."""
    path = os.path.join(workdir, "checkpoints", "ckpt-*.index")
    while process.poll() is None:
        steps = [int(name.split("-")[-1].split(".")[0]) for name in glob.glob(path)]
        if steps and max(steps) >= step:
            return
        time.sleep(0.01)  # looks again; what is waited for is the file


def newest(workdir):
    names = glob.glob(os.path.join(workdir, "checkpoints", "ckpt-*.index"))
    return max((int(name.split("-")[-1].split(".")[0]) for name in names), default=0)


def test_a_workdir_that_is_removed_is_not_made_again(tmp_path, digits_dir):
    workdir = str(tmp_path / "run")
    process = start(train_command(workdir, digits_dir, *SMALLEST, "train.num_steps = 1000000"))
    wait_for_checkpoint(process, workdir, 3)
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.rmtree(workdir, ignore_errors=True)  # a checkpoint may have been under way
    err = ending(process)
    assert process.returncode == 1 and "Traceback" not in err, err[-3000:]
    assert f"--workdir={workdir}" in err
    left = os.listdir(workdir) if os.path.exists(workdir) else []
    assert left in ([], ["checkpoints"])  # the checkpoint that was under way


def test_a_second_trainer_is_refused_and_the_first_goes_on(tmp_path, digits_dir):
    workdir = str(tmp_path / "run")
    arguments = train_command(workdir, digits_dir, *SMALLEST, "train.num_steps = 1000000")
    first = start(arguments)
    wait_for_checkpoint(first, workdir, 1)
    second = run(arguments)
    assert second.returncode == 1 and "is in use by another trainer" in second.stderr
    assert f'"pid": {first.pid}' in second.stderr and "Traceback" not in second.stderr
    seen = newest(workdir)
    wait_for_checkpoint(first, workdir, seen + 2)
    assert first.poll() is None
    first.kill()
    ending(first)
    step = newest(workdir) + 2
    again = run(train_command(workdir, digits_dir, *SMALLEST, f"train.num_steps = {step}"))
    assert again.returncode == 0, again.stderr[-3000:]


def test_a_mistyped_init_from_does_not_claim_the_workdir(tmp_path, digits_dir, finished_run):
    workdir = str(tmp_path / "run")
    mistyped = run(train_command(workdir, digits_dir, extra=[f"--init_from={finished_run}x"]))
    assert mistyped.returncode == 1 and "is neither a workdir nor" in mistyped.stderr
    other = ["UNet.channels = 16", "train.num_steps = 4"]
    arguments = train_command(workdir, digits_dir, *other, extra=[f"--init_from={finished_run}"])
    result = run(arguments)
    assert result.returncode == 1 and "is of another network" in result.stderr
    arguments = train_command(
        workdir, digits_dir, *other[1:], extra=[f"--init_from={finished_run}"]
    )
    for words in ("with the averaged weights of", "resuming at step 4"):
        result = run(arguments)
        assert result.returncode == 0 and words in result.stdout, result.stderr[-3000:]


LAST = """
import os, signal, sys
from bdm_tf import config
from bdm_tf.exporting import finish_run  # which gin needs
from bdm_tf.training.checkpoints import Checkpoints
from bdm_tf.training.loop import train
from bdm_tf.training.strategy import make_strategy

workdir, data_dir, *tiny = sys.argv[1:]
save = Checkpoints.save

def interrupted(self, step, at_once=False):
    if step == 12:
        os.kill(os.getpid(), signal.SIGTERM)
    return save(self, step, at_once)

Checkpoints.save = interrupted
config.parse(["digits.gin"], tiny)
paths = dict(data_dir=data_dir, on_corrupt_image="stop")  # given, as the command does
print(train(workdir, make_strategy("one_device"), lambda *_: sys.exit(9), **paths))
"""


def test_a_sigterm_at_the_last_step_is_heard_and_the_same_command_exports(tmp_path, digits_dir):
    workdir = str(tmp_path / "run")
    result = run([sys.executable, "-c", LAST, workdir, digits_dir, *TINY])
    assert result.returncode == 0, result.stderr[-3000:]
    assert "stopped at step 12" in result.stdout and result.stdout.splitlines()[-1] == "15"
    result = run(train_command(workdir, digits_dir))
    assert result.returncode == 0 and f"exporting {workdir}" in result.stdout


TWO_SIGNALS = """
import os, signal
from bdm_tf.training.signals import StopRequest
with StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal_number == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGINT)
"""
ANY_ERROR = """
import threading, time
from bdm_tf.system.errors import exits_on_user_error
threading.Thread(target=time.sleep, args=(1000,)).start()  # for which the interpreter would wait
exits_on_user_error(lambda argv: 1 / 0)([])
"""


@pytest.mark.parametrize(
    "script, status, word",
    [(TWO_SIGNALS, -signal.SIGINT, "a second signal kills"), (ANY_ERROR, 1, "ZeroDivisionError")],
)
def test_a_process_ends_at_once(script, status, word):
    result = run_afresh(["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", script], timeout=100)
    assert result.returncode == status and word in result.stderr, result.stderr


GROWTH = """
import os, sys
sys.path.insert(0, sys.argv[1])
from bdm_tf.system.errors import exits_on_user_error
exits_on_user_error(lambda argv: print(os.environ["TF_FORCE_GPU_ALLOW_GROWTH"]))([])
"""


@pytest.mark.parametrize("given, found", [(None, "true"), ("false", "false")])
def test_commands_share_a_gpu_unless_told_otherwise(given, found, monkeypatch):
    if given:
        monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", given)
    assert run([sys.executable, "-c", GROWTH, ROOT]).stdout == f"{found}\n"


NAN = """
import sys
import tensorflow as tf
from bdm_tf import config
from bdm_tf.data import pipeline
from bdm_tf.exporting import finish_run
from bdm_tf.training.loop import train
from bdm_tf.training.strategy import make_strategy

workdir, data_dir, *tiny = sys.argv[1:]
sound = pipeline.training_dataset

def poisoned(*args, **kwargs):
    def poison(i, element):
        image = tf.where(i == 6, float("nan"), element["image"])  # of the seventh step
        return {**element, "image": image}
    return sound(*args, **kwargs).enumerate().map(poison)

pipeline.training_dataset = poisoned
config.parse(["digits.gin"], tiny)
train(workdir, make_strategy("one_device"), lambda *_: None, data_dir=data_dir)
"""


@pytest.mark.parametrize("checkpoint_every", [1, 4])
def test_a_nan_in_the_data_stops_the_run_and_is_never_saved(checkpoint_every, tmp_path, digits_dir):
    workdir = str(tmp_path / "run")
    settings = [*TINY, f"train.checkpoint_every = {checkpoint_every}", "train.log_every = 0"]
    result = run([sys.executable, "-c", NAN, workdir, digits_dir, *settings])
    assert result.returncode == 1
    assert "the loss is not finite at step 7" in result.stderr
    last = newest(workdir)
    assert last == {1: 6, 4: 4}[checkpoint_every] and f"ckpt-{last}) is untouched" in result.stderr
    for value in saved_values(workdir).values():
        assert np.isfinite(value).all()
