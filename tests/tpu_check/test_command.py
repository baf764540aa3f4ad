"""The TPU compiler itself, on a machine without a TPU."""

import importlib.util
import json
import os
import sys

import pytest

from tests.conftest import ROOT, command, run_afresh

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


def tpu_check(*arguments):
    gin_file = f"--gin_file={os.path.join(ROOT, 'gin', 'digits.gin')}"
    return run_afresh(
        command("tpu_check.py", gin_file, *[f"--gin_param={p}" for p in SMALL], *arguments)
    )


@needs_the_compiler
@pytest.mark.parametrize("what", ["train", "sample"])
def test_a_small_model_compiles_and_is_accounted_for(what, tmp_path):
    output = str(tmp_path / "report.json")
    result = tpu_check("--topology=v5e:2x2", f"--what={what}", f"--output={output}")
    assert result.returncode == 0, result.stderr[-3000:]
    with open(output) as file:
        report = json.load(file)
    assert report["compiles"] and report["fits"]
    assert report["batch_size_per_core"] == 16 and report["image_shape"] == [8, 8, 1]
    used = report["cycles"]
    assert 0 < used["matrix_unit"] < used["total"]
    assert report["not_matrix_share"] == 1 - used["matrix_unit"] / used["total"]
    assert report["flops_per_byte"] == report["flops"] / report["bytes_accessed"]
    assert report["compile_cpu_seconds"] > 0 and " s of CPU" in result.stdout
    seconds = report["estimated_seconds"]
    assert seconds["cycles"] == pytest.approx(used["total"] / 1.5e9)
    assert (1 in used["loops"]) == (what == "sample")
    assert seconds["step"] == max(seconds.values()) and "ms at best" in result.stdout
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
    assert f"{what} step of {report['parameters']:,} parameters" in result.stdout
    assert "16 of 64 images a core" in result.stdout


@needs_the_compiler
def test_the_compiler_does_not_undo_rematerialisation(tmp_path):
    flops = []
    for remat in (False, True):
        output = str(tmp_path / f"{remat}.json")
        flags = "--topology=v5e:1x1", f"--gin_param=UNet.remat = {remat}", f"--output={output}"
        assert tpu_check(*flags).returncode == 0
        with open(output) as file:
            flops.append(json.load(file)["flops"])
    assert flops[1] > 1.15 * flops[0]


@needs_the_compiler
def test_accumulation_is_the_same_work_in_parts(tmp_path):
    reports = []
    for parts in (1, 4):
        output = str(tmp_path / f"{parts}.json")
        parameter = f"--gin_param=train.accumulation_steps = {parts}"
        result = tpu_check("--topology=v5e:2x2", parameter, f"--output={output}")
        assert result.returncode == 0, result.stderr[-3000:]
        with open(output) as file:
            reports.append(json.load(file))
    whole, in_parts = reports
    assert "one of 4 parts" in result.stdout
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
    "no shape": (["--image_shape=32,x"], "--image_shape=32,x must be three numbers"),
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
    assert '".[tpu_check]"' in result.stderr
