"""Ctrl-C and SIGTERM at a command's start: it ends, whatever it is doing."""

import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import ROOT, command, run_afresh, train_command


@pytest.fixture(autouse=True)
def as_in_the_foreground():
    """A shell's background jobs ignore Ctrl-C, and so would what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(arguments):
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def ending(process, number):
    """What was written to stderr after a signal; one that is not heard is a `TimeoutExpired`."""
    process.send_signal(number)
    try:
        _, written = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number, written
    assert "interrupted" in written and "Traceback" not in written, written


def test_ctrl_c_ends_the_reading_of_a_large_folder(tmp_path):
    folder, workdir = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    Image.new("L", (6000, 6000)).save(folder / "0.png")
    for i in range(1, 400):  # a minute's work at least
        os.link(folder / "0.png", folder / f"{i}.png")
    process = start(
        train_command(workdir, folder, "ImageFolder.image_size = 8", gin_file="folder.gin")
    )
    assert f"{folder}: 400 images" in process.stdout.readline()
    ending(process, signal.SIGINT)
    assert not (workdir / "config.gin").exists()  # by which it would be claimed


def test_sigterm_ends_imports(tmp_path):
    python, *arguments = train_command(tmp_path, tmp_path)
    process = start([python, "-X", "importtime", *arguments])
    while " tensorflow." not in process.stderr.readline():  # the first of many
        assert process.poll() is None
    ending(process, signal.SIGTERM)


CLEANING = """
import os, signal
from bdm_tf.system.interrupts import cleaning_up, end_at_once
end_at_once()
try:
    with cleaning_up():
        os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("clean", flush=True)
os.kill(os.getpid(), signal.SIGINT)
"""
IGNORING = """
import os, signal
from bdm_tf.system.interrupts import end_at_once
signal.signal(signal.SIGINT, signal.SIG_IGN)
end_at_once()
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("script, status, out", [(CLEANING, 130, "clean\n"), (IGNORING, 0, "")])
def test_what_is_half_written_is_removed_and_what_is_ignored_stays_so(script, status, out):
    result = run_afresh(["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", script], timeout=60)
    assert (result.returncode, result.stdout) == (status, out), result.stderr


@pytest.mark.parametrize("end", ["pass", "os.abort()", "raise KeyError('why')"])
def test_tensorflows_first_lines_are_left_out_and_all_else_is_shown(end):
    code = (
        "import os\nfrom bdm_tf.system.terminal import _without_chatter\n"
        "with _without_chatter():\n"
        f"    os.write(2, b'I0000 00:00 on another CPU\\nof use\\n')\n    {end}\n"
        "os.write(2, b'I0000 later\\n')\n"
    )
    result = run_afresh([sys.executable, "-c", code])
    assert "another CPU" not in result.stderr and "of use\n" in result.stderr
    assert ("I0000 later" in result.stderr) == (end == "pass")
    assert ("KeyError: 'why'" in result.stderr) == end.startswith("raise")


@pytest.mark.parametrize("end", ["raise KeyError", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_what_autograph_writes_is_removed_however_a_command_ends(end, tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "import os, signal\nimport tensorflow as tf\n"
        "from bdm_tf.system.errors import exits_on_user_error\n"
        "from bdm_tf.system.interrupts import end_at_once\n\n"
        "@tf.function\ndef positive(x):\n    return x if x > 0 else -x\n\n"
        "@exits_on_user_error\ndef main(argv):\n"
        "    positive(tf.constant(1.0))\n    print(os.listdir(os.environ['TMPDIR']), flush=True)\n"
        f"    {end}\n\n"
        "end_at_once()\nmain([])\n"
    )
    (tmp_path / "temporary").mkdir()
    given = [f"TMPDIR={tmp_path}/temporary", f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE="]
    result = run_afresh(["env", *given, sys.executable, str(script)])
    assert result.returncode == (1 if end.startswith("raise") else 143), result.stderr
    assert "__autograph_generated_file" in result.stdout
    assert os.listdir(tmp_path / "temporary") == []


def test_a_command_says_nothing_on_stderr_but_its_progress(finished_run, tmp_path):
    arguments = ["sample.py", f"--saved_model={finished_run}/saved_model", "--num_images=1"]
    result = run_afresh(command(*arguments, f"--output={tmp_path}/a.png"))
    assert result.returncode == 0
    assert not [line for line in result.stderr.splitlines() if line and "img" not in line]


def test_what_never_looks_at_signals_is_ended_by_one():
    code = (
        "import hashlib\nfrom bdm_tf.system.interrupts import end_at_once, interruptible\n"
        "end_at_once()\nprint('begun', flush=True)\n"
        "interruptible(hashlib.pbkdf2_hmac, hash_name='sha256', password=b'', salt=b'', "
        "iterations=2**31 - 1)\n"
    )
    arguments = [sys.executable, "-c", code]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_what_keras_would_import_for_nothing_is_left_for_later():
    program = (
        "import sys; from bdm_tf.system.terminal import load_tensorflow; load_tensorflow();"
        "print({'sklearn', 'matplotlib', 'jax'} & set(sys.modules));"
        "import matplotlib, sklearn.neighbors, keras, tensorflow"
    )
    result = run_afresh([sys.executable, "-c", program])
    assert (result.returncode, result.stdout) == (0, "set()\n"), result.stderr
