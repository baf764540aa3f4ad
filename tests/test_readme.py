"""What the README shows, run."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def blocks(language):
    with open(os.path.join(ROOT, "README.md")) as file:
        return re.findall(rf"```{language}\n(.*?)```", file.read(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_examples_run_as_they_stand(number, tmp_path, finished_run):
    os.makedirs(tmp_path / "runs")
    os.symlink(finished_run, tmp_path / "runs" / "digits")
    environment = {**os.environ, "PYTHONPATH": ROOT}
    result = subprocess.run(
        [sys.executable, "-c", blocks("python")[number]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_files_named_in_commands_exist():
    names = re.findall(
        r"(?<![\w/.=])((?:launch|gin|tests|benchmarks)/[\w/]+\.\w+)", "".join(blocks("sh"))
    )
    assert len(names) > 5
    for name in names:
        assert os.path.exists(os.path.join(ROOT, name)), name
