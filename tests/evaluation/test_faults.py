"""Evaluations beside each other, and what earlier ones left when it is damaged."""

import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest

from bdm_tf.evaluation.results import ResultLog, finished
from bdm_tf.system.errors import UserError
from tests.conftest import run
from tests.evaluation.conftest import load, rows, succeeded

DISTANCE = "evaluate.evaluators = [@FrechetDistance]"


@pytest.mark.slow
def test_a_second_equal_evaluation_is_refused_and_the_first_ends(tmp_path, finished_run, evaluate):
    command = evaluate(
        f"--workdir={finished_run}",
        f"--output={tmp_path}/r.json",
        f"--save_samples={tmp_path}/s.npz",
        parameters=[DISTANCE, "evaluate.num_images = 1000", "evaluate.batch_size = 100"],
    )
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seen = b""
    while not re.search(rb" [1-9]\d*/1000 ", seen):
        read = first.stderr.read(1)
        assert read, seen.decode()
        seen += read
    first.send_signal(signal.SIGSTOP)
    second = run(command)
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=300)
    assert second.returncode == 1 and "Traceback" not in second.stderr, second.stderr[-3000:]
    assert "another evaluation draws the same samples, " in second.stderr
    assert f'"pid": {first.pid}' in second.stderr
    assert first.returncode == 0, errors[-3000:]
    assert sorted(os.listdir(tmp_path)) == ["r.json", "s.npz"]
    assert len(np.load(tmp_path / "s.npz")["images"]) == 1000
    assert load(tmp_path / "r.json")["figures"]["fd_pixels_train"]["num_generated"] == 1000


@pytest.mark.slow
def test_watch_passes_over_a_cut_checkpoint(tmp_path, finished_run, evaluate):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    with open(workdir / "checkpoints" / "ckpt-8.data-00000-of-00001", "r+b") as file:
        file.truncate(1000)
    loss = "evaluate.evaluators = [@EvalLoss]"
    watching = evaluate(f"--workdir={workdir}", "--watch", "--num_images=0", parameters=[loss])
    result = succeeded(watching)
    assert "step 8 cannot be read" in result.stdout and "passed over" in result.stdout
    assert [row["step"] for row in rows(workdir)] == [4, 12]


_NEVER_RESULTS = [b"[]", b'{"protocol": 3}', b"\xff\xfe", b'{"figures": ["fig1.png"]}']


@pytest.mark.parametrize("content", [b"", b"{ no", *_NEVER_RESULTS])
def test_a_damaged_file_of_results_is_not_overwritten_in_silence(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="results.json exists and holds no results") as error:
        finished(str(path), {"seed": 0}, overwrite=False)
    assert ("--overwrite" in error.value.message) == (content not in _NEVER_RESULTS)
    if content not in _NEVER_RESULTS:
        assert finished(str(path), {"seed": 0}, overwrite=True) is None
    else:  # it was never a file of results
        with pytest.raises(UserError, match="holds no results: give another --output"):
            finished(str(path), {"seed": 0}, overwrite=True)
    assert path.read_bytes() == content


def test_two_evaluations_that_follow_a_run_keep_each_others_results(tmp_path):
    logs = [ResultLog(str(tmp_path / "results.jsonl")) for _ in range(2)]
    for log, key in zip(logs, "ab"):
        log.append({"step": 4, "key": key, "figures": {}})
    assert [row["key"] for row in rows(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("line", [b'{"step', b"[]", b"{}", b"\xff\xfe"])
def test_a_damaged_line_of_results_is_named(line, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"step": 4, "key": "a", "figures": {}}\n' + line + b"\n")
    with pytest.raises(UserError, match="results.jsonl is damaged in line 2: remove that line"):
        ResultLog(str(path))
