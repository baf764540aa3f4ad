"""How a figure develops during training, for several runs that were watched.

python launch/evaluate.py --watch --workdir=runs/a --gin_file=gin/eval/digits.gin
python benchmarks/figure_by_step.py --run="no blur=runs/a" --run="blur 20=runs/b" --output=steps.png

Runs of the same label are drawn as their mean, with the range that they cover.
"""

import json
import os

import matplotlib
import numpy as np
from absl import app, flags

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bdm_tf.system.paths import define_path

_RUNS = flags.DEFINE_multi_string("run", None, "LABEL=WORKDIR, several times.", required=True)
_FIGURE = flags.DEFINE_string("figure", "fd_pixels_train", "The figure's name in results.jsonl.")
_OUTPUT = define_path("output", "figure_by_step.png", "Where the plot goes.")


def values_by_step(workdir: str, figure: str) -> dict[int, float]:
    """The figure at each step; of several protocols, the one that was measured last."""
    with open(os.path.join(workdir, "results.jsonl")) as file:
        rows = [json.loads(line) for line in file]
    key = rows[-1]["key"]
    return {row["step"]: row["figures"][figure]["value"] for row in rows if row["key"] == key}


def main(_) -> None:
    found: dict[str, list[dict[int, float]]] = {}
    for run in _RUNS.value:
        label, _, workdir = run.partition("=")
        found.setdefault(label, []).append(values_by_step(workdir, _FIGURE.value))
    _, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for label, runs in found.items():
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        values = np.array([[run[step] for step in steps] for run in runs])
        (line,) = axes.plot(steps, values.mean(0), "o-", label=label)
        if len(runs) > 1:
            axes.fill_between(
                steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.2
            )
        for step, value in zip(steps, values.mean(0)):
            print(f"{label:<20} step {step:>8} {_FIGURE.value} {value:.4f}")
    axes.set(xlabel="training step", ylabel=_FIGURE.value, yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    plt.savefig(_OUTPUT.value, dpi=150)
    print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
