"""Are labels obeyed, and what do they and guidance cost? On the digits, by training seed.

python benchmarks/labels.py

trains `gin/digits.gin`, which knows no labels, and `gin/digits_labels.gin` for each of --seeds, or
takes the runs that are in --folder; scores samples by `launch/evaluate.py` without labels and with
each --guidance; and prints a table of means over the seeds, with the least and the most. The same
command goes on where it was stopped.
"""

import json
import os

from absl import app, flags
from commands import ROOT, run
from tables import mean_and_range

from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.files import write_atomically
from bdm_tf.system.paths import define_path

FIGURES = {
    "fd_pixels_train": "Fréchet",
    "label_accuracy": "accuracy",
    "precision_train": "precision",
    "recall_train": "recall",
}

_FOLDER = define_path("folder", "runs/labels", "Where runs, results and labels.md go.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of training.")
_GUIDANCE = flags.DEFINE_list("guidance", ["0", "1", "1.5", "3"], "Of samples with labels.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 2000, "Samples a row.", 1)
_NUM_STEPS = flags.DEFINE_integer("num_steps", 3000, "Of training.", 1)
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "For all training runs.")
_DATA_DIR = define_path("data_dir", None, "TFDS's folder.")


def train(gin_file: str, seed: str) -> str:
    """Trains a run, or goes on with it; returns its workdir."""
    workdir = os.path.join(_FOLDER.value, f"{gin_file}_seed{seed}")
    parameters = [f"train.seed = {seed}", f"train.num_steps = {_NUM_STEPS.value}"]
    run(
        "train.py",
        f"--gin_file={ROOT}/gin/{gin_file}.gin",
        f"--workdir={workdir}",
        *(f"--gin_param={parameter}" for parameter in [*parameters, *_GIN_PARAM.value]),
        data_dir=_DATA_DIR.value,
    )
    return workdir


def score(workdir: str, guidance: str | None) -> dict:
    """The figures of samples; guidance is None for a run without labels."""
    path = os.path.join(workdir, f"results_{guidance}.json")
    parameters = ["evaluate.evaluators = [@FrechetDistance, @LabelAccuracy, @PrecisionRecall]"]
    parameters += [f"evaluate.guidance = {guidance}"] if guidance else []
    run(
        "evaluate.py",
        f"--workdir={workdir}",
        f"--gin_file={ROOT}/gin/eval/digits.gin",
        f"--num_images={_NUM_IMAGES.value}",
        f"--output={path}",
        *(f"--gin_param={parameter}" for parameter in parameters),
        data_dir=_DATA_DIR.value,
    )
    with open(path) as file:
        return json.load(file)["figures"]


def row(name: str, scores: list[dict]) -> str:
    """A line of the table: the mean of each figure over runs, and what it ranges over."""
    cells = [name]
    for figure in FIGURES:
        values = [score[figure]["value"] for score in scores if figure in score]
        cells.append(mean_and_range(values) if values else "")
    return f"| {' | '.join(cells)} |"


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --folder=DIR")
    if wrong := [seed for seed in _SEEDS.value if not seed.isdecimal()]:
        raise UserError(f"--seeds: {wrong[0]} must be a whole number, for instance 0,1,2")
    lines = [f"| | {' | '.join(FIGURES.values())} |", "|" + "---|" * (len(FIGURES) + 1)]
    plain = [train("digits", seed) for seed in _SEEDS.value]
    lines.append(row("no labels", [score(workdir, None) for workdir in plain]))
    labelled = [train("digits_labels", seed) for seed in _SEEDS.value]
    for guidance in _GUIDANCE.value:
        scores = [score(workdir, guidance) for workdir in labelled]
        lines.append(row(f"labels, guidance {guidance}", scores))
    table = "\n".join(lines) + "\n"
    write_atomically(os.path.join(_FOLDER.value, "labels.md"), table)
    print(table)


if __name__ == "__main__":
    app.run(main)
