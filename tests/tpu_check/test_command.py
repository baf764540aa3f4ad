"""The TPU compiler itself, on a machine without a TPU."""

import importlib.util
import json
import os
import sys

import pytest

from tests.conftest import ROOT, command, run, run_afresh

needs_the_compiler = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("jax", "libtpu"))),
    reason='pip install -e ".[tpu_check]" brings the TPU compiler',
)
SMALL = [
    "UNet.channels = 8",
    "UNet.channel_multipliers = (1,)",
    "UNet.num_res_blocks = 1",
    "UNet.attention_resolutions = ()",
]


def tpu_check(*arguments, run=run):
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'digits.gin')}"
    return run(command("tpu_check.py", gin_file, *[f"--gin_param={p}" for p in SMALL], *arguments))


def compiled(folder, *arguments, run=run):
    """The report of a model that compiles, and what was printed."""
    output = f"--output={folder / 'report.json'}"
    result = tpu_check("--topology=v5e:2x2", *arguments, output, run=run)
    assert result.returncode == 0, result.stderr[-3000:]
    with open(folder / "report.json") as file:
        return json.load(file), result.stdout


@pytest.fixture(scope="module")
def train_step(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("train"), run=run_afresh)


@needs_the_compiler
@pytest.mark.parametrize("what", ["train", "sample"])
def test_a_small_model_compiles_and_is_accounted_for(what, train_step, tmp_path):
    report, printed = train_step if what == "train" else compiled(tmp_path, "--what=sample")
    assert report["compiles"] and report["fits"]
    assert report["batch_size_per_core"] == 16 and report["image_shape"] == [8, 8, 1]
    used = report["cycles"]
    assert 0 < used["matrix_unit"] < used["total"]
    assert report["not_matrix_share"] == 1 - used["matrix_unit"] / used["total"]
    assert report["flops_per_byte"] == report["flops"] / report["bytes_accessed"]
    assert report["compile_cpu_seconds"] > 0 and " s of CPU" in printed
    seconds = report["estimated_seconds"]
    assert seconds["cycles"] == pytest.approx(used["total"] / 1.5e9)
    assert (1 in used["loops"]) == (what == "sample")
    assert seconds["step"] == max(seconds.values()) and "ms at best" in printed
    memory = report["memory"]
    variables = 4 * report["parameters"]
    if what == "train":
        # Weights, their average, two moments.
        assert 4 * variables <= memory["arguments"]
        assert memory["aliased"] >= 4 * variables
    else:
        assert variables <= memory["arguments"] < 4 * variables + 2**20
    # The compiler's count of the work against ours: of a sampler's many steps, one.
    assert report["flops"] == pytest.approx(report["analytic_flops"], rel=0.4)
    assert f"{what} step of {report['parameters']:,} parameters" in printed
    assert "16 of 64 images a core" in printed


@needs_the_compiler
def test_the_compiler_does_not_undo_rematerialisation(train_step, tmp_path):
    plain, _ = train_step
    recomputing, _ = compiled(tmp_path, "--gin_param=UNet.remat = True")
    assert recomputing["flops"] > 1.15 * plain["flops"]


@needs_the_compiler
def test_accumulation_is_the_same_work_in_parts(train_step, tmp_path):
    whole, _ = train_step
    in_parts, printed = compiled(tmp_path, "--gin_param=train.accumulation_steps = 4")
    assert "one of 4 parts" in printed
    assert in_parts["parts_per_step"] == 4
    assert in_parts["analytic_flops"] == whole["analytic_flops"]
    assert in_parts["flops_to_analytic"] == pytest.approx(whole["flops_to_analytic"], rel=0.2)
    of_parts, of_whole = (r["estimated_seconds"]["flops"] for r in (in_parts, whole))
    assert of_parts == pytest.approx(of_whole, rel=0.2)
    assert whole["cycles"]["loops"] == [] and in_parts["cycles"]["loops"] == [4]


@needs_the_compiler
def test_what_does_not_fit_is_said_with_a_way_out():
    result = tpu_check("--topology=v5e:1x1", "--batch_size=3000000")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "HBM" in result.stdout and "accumulation_steps" in result.stdout


WRONG = {
    "no such chip": (["--topology=v9:2x2"], "--topology=v9:2x2 must be a chip"),
    "no shape": (["--image_shape=0,8,1"], "--image_shape=0,8,1 must be three numbers above 0"),
    "no number": (["--image_shape=8,8,²"], "--image_shape=8,8,² must be three numbers above 0"),
    "no such slice": (["--topology=v5e:3x3"], "take one of 1x1, 2x2, 2x4"),
    "indivisible": (["--batch_size=6"], "a batch of 6 cannot be cut into 8 equal pieces"),
}


@needs_the_compiler
@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_a_clear_message(case):
    flags, message = WRONG[case]
    result = tpu_check(*flags)
    assert result.returncode == 1 and message in result.stderr
    assert "Traceback" not in result.stderr and "lowered" not in result.stdout


@needs_the_compiler
@pytest.mark.parametrize("name", ["v4:2x2x1", "v4:1x1x1", "v5e:1x1", "v5p:2x2x1", "v6e:2x4"])
def test_a_chip_is_one_device(name):
    code = (
        "import sys\n"
        "from bdm_tf.tpu_check.topology import parse_topology, prepare_environment\n"
        "prepare_environment()\n"
        "from bdm_tf.tpu_check.compiling import devices\n"
        "slice = parse_topology(sys.argv[1])\n"
        "print(len(devices(slice.name, slice.options)) == slice.num_chips)"
    )
    result = run_afresh([sys.executable, "-c", code, name])
    assert result.stdout.strip() == "True", result.stderr[-3000:]


def test_without_the_compiler_the_extra_is_named():
    code = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n in ('jax', 'libtpu') else real(n, *a)\n"
        "from bdm_tf.tpu_check.topology import prepare_environment as p\n"
        "p()"
    )
    result = run_afresh([sys.executable, "-c", code])
    assert "the TPU compiler needs jax and libtpu" in result.stderr
    assert '"bdm_tf[tpu_check]"' in result.stderr
