"""Someone who has the wheel alone, which is made from the sdist."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.slow

BUILD = """
import os, shutil, sys
from setuptools import build_meta

made, installed = sys.argv[1:]
sdist = build_meta.build_sdist(made)
shutil.unpack_archive(os.path.join(made, sdist), made)
os.chdir(os.path.join(made, sdist.removesuffix(".tar.gz")))
wheel = build_meta.build_wheel(made)
shutil.unpack_archive(os.path.join(made, wheel), installed, "zip")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("bdm_tf", "gin"):
        shutil.copytree(os.path.join(ROOT, name), source / name)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(os.path.join(ROOT, name), source)
    result = subprocess.run(
        [sys.executable, "-c", BUILD, folder / "made", folder / "installed"],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / "installed"


def test_the_wheel_holds_the_experiments_and_the_commands(installed):
    there, here = (
        {path.relative_to(folder) for path in Path(folder).rglob("*.gin")}
        for folder in (installed / "bdm_tf" / "gin", os.path.join(ROOT, "gin"))
    )
    assert there == here
    scripts = Distribution.at(next(installed.glob("*.dist-info"))).entry_points
    commands = {path.stem for path in Path(ROOT, "launch").glob("*.py")}
    assert {script.name for script in scripts} == {
        f"bdm-{name.replace('_', '-')}" for name in commands
    }
    for script in scripts:
        assert (installed / f"{script.module.replace('.', '/')}.py").exists()


def test_the_wheel_trains_by_its_own_gin_files_from_any_folder(installed, tmp_path, digits_dir):
    with open(installed / "bdm_tf" / "gin" / "base" / "spectral.gin", "a") as file:
        file.write("train.seed = 11\n")
    parameters = [f"--gin_param={p}" for p in (*TINY, "train.num_steps = 2")]
    experiment = ["--gin_file=gin/digits.gin", f"--data_dir={digits_dir}", *parameters]
    result = subprocess.run(
        [sys.executable, "-m", "bdm_tf.train", *experiment],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    run = tmp_path / "runs" / "digits"
    assert "train.seed = 11\n" in (run / "config.gin").read_text()
    assert (run / "saved_model" / "saved_model.pb").exists()
