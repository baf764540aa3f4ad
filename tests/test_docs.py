"""What the README and the pages of docs/ show, run."""

import glob
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, command, run, run_afresh, train_command

PAGES = ["README.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT))]


def text_of(page):
    with open(os.path.join(ROOT, page)) as file:
        return file.read()


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


EXAMPLES = {
    f"{page}-{number}": code for page in PAGES for number, code in enumerate(blocks(page, "python"))
}


def own_parts(folder):
    """Writes `my_parts.py` as docs/extend.md has it, class by class."""
    parts = [code for code in blocks("docs/extend.md", "python") if "@gin.register" in code]
    (folder / "my_parts.py").write_text("\n\n".join(parts))


@pytest.mark.parametrize("name", EXAMPLES)
def test_python_examples_run_as_they_stand(name, tmp_path, finished_run, labelled_run):
    own_parts(tmp_path)
    os.makedirs(tmp_path / "runs")
    os.symlink(finished_run, tmp_path / "runs" / "digits")
    os.symlink(labelled_run, tmp_path / "runs" / "digits_labels")
    result = subprocess.run(
        [sys.executable, "-c", EXAMPLES[name]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_commands_exist(page):
    names = re.findall(
        r"(?<![\w/.=])((?:launch|gin|tests|benchmarks|docs|pretrained)/[\w/]+\.\w+)",
        "".join(blocks(page, "sh")),
    )
    for name in names:
        assert os.path.exists(os.path.join(ROOT, name)), name


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    folder = os.path.dirname(os.path.join(ROOT, page))
    for target in re.findall(r"\]\(([^)#]+)\)", text_of(page)):
        if "://" not in target:
            assert os.path.exists(os.path.join(folder, target)), target


@pytest.mark.parametrize("page", PAGES)
def test_pages_that_are_named_exist(page):
    for name in re.findall(r"`((?:docs|tests|benchmarks|gin|bdm_tf)/[\w/]+\.\w+)`", text_of(page)):
        assert os.path.exists(os.path.join(ROOT, name)), name


def test_own_parts_are_found_again_by_other_commands(tmp_path, digits_dir):
    own_parts(tmp_path)
    (tmp_path / "my.gin").write_text(
        "import my_parts\nModel.network = @ConvNet\nBlurringProcess.noise = @LinearLogSNR()\n"
        "BlurringProcess.basis = @Hartley()\nsample.sampler = @Renoise()\n"
    )
    workdir = tmp_path / "run"
    found = {**os.environ, "PYTHONPATH": str(tmp_path)}
    train = train_command(workdir, digits_dir, extra=[f"--gin_file={tmp_path / 'my.gin'}"])
    result = run_afresh(train, env=found)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (workdir / "config.gin").read_text().startswith("import my_parts\n")
    export = command("export.py", f"--workdir={workdir}", f"--export_dir={tmp_path / 'exported'}")
    result = run_afresh(export)
    assert result.returncode == 1 and '"import my_parts" fails' in result.stderr
    assert "PYTHONPATH" in result.stderr and "Traceback" not in result.stderr
    assert run_afresh(export, env=found).returncode == 0
    drawn = tmp_path / "drawn.npz"
    sample = command("sample.py", f"--saved_model={tmp_path / 'exported'}", f"--output={drawn}")
    assert run([*sample, "--num_images=2"]).returncode == 0
