"""The notebook runs, and shows what it says."""

import os

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
PATH = os.path.join(ROOT, "docs", "tutorial.ipynb")


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_the_tutorial_runs_and_draws_what_it_is_stored_with(tmp_path, digits_dir, monkeypatch):
    notebook = nbformat.read(PATH, as_version=4)
    stored = pictures(notebook)
    sources = [cell.source for cell in notebook.cells]
    assert sum("NUM_STEPS = 1500" in source for source in sources) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace("NUM_STEPS = 1500", "NUM_STEPS = 4")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("TFDS_DATA_DIR", digits_dir)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    assert pictures(notebook) == stored > 10
    assert os.path.exists(tmp_path / "runs" / "tutorial" / "saved_model" / "saved_model.pb")


def test_the_stored_tutorial_is_small_and_names_no_machine():
    assert os.path.getsize(PATH) < 400_000
    with open(PATH) as file:
        text = file.read()
    assert "/home/" not in text and "/root/" not in text and "Traceback" not in text
