"""The report, with a compiler of our own."""

import json
import os

import gin
import pytest

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.stablehlo.lowering import Module
from bdm_tf.stablehlo.steps import use_defaults
from bdm_tf.tpu_check import job
from bdm_tf.tpu_check.topology import CHIPS, parse_topology
from tests.conftest import ROOT, TINY
from tests.tpu_check.test_cost import HLO

FOUND = {
    "seconds": 85.2,
    "cpu_seconds": 150.4,
    "memory": dict.fromkeys(("arguments", "outputs", "aliased", "temporaries", "code"), 2**30),
    "flops": 6e9,
    "bytes_accessed": 2e9,
    "hlo": HLO,
}


@pytest.fixture
def digits(monkeypatch):
    """A check of the digits that lowers and compiles nothing."""
    monkeypatch.setattr(job, "check_slice", lambda topology: None)
    monkeypatch.setattr(job, "lower", lambda function, specs: Module("", []))
    found = dict(FOUND)
    monkeypatch.setattr(job, "compiled", lambda module, topology: found)

    def configured(*parameters):
        config.parse([os.path.join(ROOT, "gin", "digits.gin")], [*TINY, *parameters])
        return found

    return configured


def checked(tmp_path, topology="v5e:2x2", what="train"):
    output = str(tmp_path / "report.json")
    runs = job.check(what, parse_topology(topology), output=output)
    with open(output) as file:
        return runs, json.load(file)


def test_what_is_printed_is_stored(digits, tmp_path, capsys):
    digits()
    runs, report = checked(tmp_path)
    assert runs
    assert report["flops_per_byte"] == 3 and report["not_matrix_share"] == 1 - 70 / 95
    assert report["flops_to_analytic"] == 6e9 / report["analytic_flops"]
    assert report["estimated_seconds"] == pytest.approx(
        {"flops": 6e9 / 197e12, "bytes": 2e9 / 819e9, "cycles": 95 / 1.5e9, "step": 2e9 / 819e9}
    )
    printed = capsys.readouterr().out
    for part in ("in 85 s, 150 s of CPU", "3 FLOPs a byte", "26% not in", "2.44 ms at best"):
        assert part in printed
    assert "parts" not in printed


def test_a_part_is_compared_with_a_part(digits, tmp_path, capsys):
    digits("train.accumulation_steps = 2")
    _, report = checked(tmp_path)
    assert report["parts_per_step"] == 2
    assert report["flops_to_analytic"] == 2 * 6e9 / report["analytic_flops"]
    assert report["estimated_seconds"]["step"] == pytest.approx(2 * 2e9 / 819e9)
    assert f"{report['analytic_flops'] / 2:.4g} analytic" in capsys.readouterr().out
    _, report = checked(tmp_path, what="sample")
    assert report["parts_per_step"] == 1


def test_no_clock_no_time_by_cycles(digits, tmp_path):
    digits()
    _, report = checked(tmp_path, "v6e:2x2")
    assert set(report["estimated_seconds"]) == {"flops", "bytes", "step"}


def test_what_does_not_fit_fails(digits, tmp_path, capsys):
    found = digits()
    found["memory"] = FOUND["memory"] | {"temporaries": CHIPS["v5e"].hbm}
    runs, report = checked(tmp_path)
    assert not runs and report["compiles"] and not report["fits"]
    assert "DOES NOT FIT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "taken"),
    [((), "matmul"), (("DCT.method = 'auto'",), "matmul"), (("DCT.method = 'fft'",), "fft")],
)
def test_the_transform_is_the_one_that_a_tpu_takes(given, taken, digits):
    digits(*given)
    use_defaults((8, 8, 1))
    assert gin.query_parameter("DCT.method") == taken
