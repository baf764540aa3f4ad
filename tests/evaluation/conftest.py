"""The command line of an evaluation in small, and one that is done."""

import json
import os

import pytest

from tests.conftest import ROOT, command, run

FEW = [
    "evaluate.num_steps = 3",
    "evaluate.num_images = 60",
    "evaluate.batch_size = 20",
    "KernelDistance.subset_size = 30",
    "KernelDistance.subsets = 5",
    "EvalLoss.draws = 2",
    "BitsPerDimension.draws = 2",
]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def evaluate(digits_dir, cache_dir):
    """Makes an evaluation's command line."""

    def arguments(*flags, parameters=()):
        bindings = [f"--gin_param={p}" for p in [*FEW, *parameters]]
        gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'eval', 'digits.gin')}"
        paths = [f"--data_dir={digits_dir}", f"--cache_dir={cache_dir}"]
        return command("evaluate.py", gin_file, *paths, *bindings, *flags)

    return arguments


def succeeded(arguments):
    result = run(arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def load(path):
    with open(path) as file:
        return json.load(file)


def rows(workdir):
    with open(os.path.join(workdir, "results.jsonl")) as file:
        return [json.loads(line) for line in file]


def values(results):
    return {name: figure["value"] for name, figure in results["figures"].items()}


@pytest.fixture(scope="session")
def scored(tmp_path_factory, finished_run, digits_dir, cache_dir):
    """Results of the finished run, and its samples."""
    folder = tmp_path_factory.mktemp("scored")
    bindings = [f"--gin_param={p}" for p in FEW]
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'eval', 'digits.gin')}"
    paths = [f"--data_dir={digits_dir}", f"--cache_dir={cache_dir}", f"--workdir={finished_run}"]
    out = [f"--output={folder}/results.json", f"--save_samples={folder}/samples.npz"]
    statistics = f"--export_statistics={folder}/statistics"
    succeeded(command("evaluate.py", gin_file, *paths, *bindings, *out, statistics))
    return str(folder)
