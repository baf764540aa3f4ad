"""The paper's Table 1 (and with --table Tables 3 and 4) at a scale of your choice.

python benchmarks/table1.py

trains the five models with the same UNet and budget on the bundled digits, scores each by
`launch/evaluate.py`, and writes table_1.md and table_1.png (a row of the scored samples a model).
Each model keeps its own number of sampling steps. The same command goes on where it was stopped.
(The UNet is the same in gin/digits and gin/cifar10_small; in gin/cifar10 IHDM has its own.)

python benchmarks/table1.py --gin_folder=gin/cifar10_small --eval_gin_file=gin/eval/cifar10.gin \
    --num_steps=20000 --folder=runs/table_1_cifar10 --eval_flag=--features=pixels

python benchmarks/table1.py --since_2022 --seeds=0,1,2 --evaluations=20,50,1000

scores each model at each number of network evaluations an image, in means over training seeds. What
a sampler does not take is left out; where a step takes two evaluations and the last one, it is one
less.
"""

import bisect
import io
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib
import numpy as np
from absl import app, flags
from commands import ROOT, run
from matplotlib.figure import Figure
from tables import mean_and_range

from bdm_tf import config
from bdm_tf.model import build_sample_settings, load_model
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.files import read_npz, write_atomically
from bdm_tf.system.paths import define_path

matplotlib.use("Agg")
# Rows: label, gin file of the folder, ablations on top, the paper's figures on CIFAR-10.
TABLE_1 = [
    ("Cold Diffusion (blur)*", "cold_diffusion", (), "80.08"),
    ("IHDM*", "ihdm", (), "18.96"),
    ("Soft Diffusion", "soft_diffusion", (), "4.64"),
    ("Denoising Diffusion", "denoising_diffusion", (), "3.58"),
    ("Blurring Diffusion", "blurring_diffusion", (), "3.17"),
]
SECTION_3 = [
    ("IHDM* as Gaussian diffusion, eps", "ihdm_gaussian", (), "none"),
    ("IHDM* as Gaussian diffusion, x", "ihdm_gaussian_x", (), "none"),
]
SINCE_2022 = [
    ("EDM", "edm", (), "none"),
    ("Progressive deblurring", "progressive_deblurring", (), "none"),
    ("Blurring Diffusion by gDDIM", "gddim", (), "none"),
    ("Relay Diffusion, no first stage", "relay_diffusion", (), "none"),
    ("Relay Diffusion, two stages", "relay_second", (), "none"),
    ("Noise by a power law", "power_law_noise", (), "none"),
    ("EqualSNR", "equal_snr", (), "none"),
    ("Warm Diffusion", "warm_diffusion", (), "none"),
]
TABLE_3 = [
    (f"sigma_B,max = {sigma}", "blurring_diffusion", (f"blur_{sigma}",), paper)
    for sigma, paper in ((0, "3.60"), (1, "3.49"), (10, "3.26"), (20, "3.17"))
]
# sin^2 is the default, so that its runs are those of Table 3.
TABLE_4 = [(f"{label}, sin^2", *row) for label, *row in TABLE_3] + [
    (f"{label}, sin", model, (*ablations, "blur_sin"), paper)
    for (label, model, ablations, _), paper in zip(TABLE_3, ("3.58", "3.37", "4.24", "6.54"))
]
FIRST_STAGES = {"relay_second": "relay_low"}  # whose samples a second stage begins with
TABLES = {"1": TABLE_1, "3": TABLE_3, "4": TABLE_4}

_TABLE = flags.DEFINE_enum("table", "1", list(TABLES), "Which of the paper's tables.")
_SECTION_3 = flags.DEFINE_bool("section_3", False, "With IHDM as the paper's section 3 has it.")
_SINCE_2022 = flags.DEFINE_bool("since_2022", False, "With models since the paper.")
_GIN_FOLDER = define_path("gin_folder", f"{ROOT}/gin/digits", "Has a gin file for each model.")
_EVAL_GIN_FILE = define_path("eval_gin_file", f"{ROOT}/gin/eval/digits.gin", "How to score.")
_FOLDER = define_path("folder", "runs/table_1", "Where runs, table and figure go.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 2000, "Training steps of each model.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "For all training runs.")
_EVAL_FLAG = flags.DEFINE_multi_string("eval_flag", [], "For launch/evaluate.py.")
_DATA_DIR = define_path("data_dir", None, "TFDS's folder.")
_ONLY = flags.DEFINE_list("only", None, "Gin file names of the models to run; default all.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Training seeds; more than one with --evaluations.")
_EVALUATIONS = flags.DEFINE_list("evaluations", [], "Network evaluations; default each its own.")
_COLUMNS = flags.DEFINE_integer("columns", 16, "Samples in a row of the figure.")


def name_of(model: str, ablations: tuple[str, ...]) -> str:
    return "+".join((model, *ablations))


def train(model: str, ablations: tuple[str, ...], seed: int = 0) -> str:
    """Returns the workdir."""
    folder = os.path.join(_FOLDER.value, f"seed_{seed}") if seed else _FOLDER.value
    workdir = os.path.join(folder, name_of(model, ablations))
    files = [os.path.join(_GIN_FOLDER.value, f"{model}.gin")]
    files += [os.path.join(ROOT, "gin", "ablations", f"{file}.gin") for file in ablations]
    parameters = [f"train.num_steps = {_NUM_STEPS.value}", *_GIN_PARAM.value]
    parameters += [f"train.seed = {seed}"] if seed else []
    run(
        "train.py",
        f"--workdir={workdir}",
        *(f"--gin_file={file}" for file in files),
        *(f"--gin_param={parameter}" for parameter in parameters),
        data_dir=_DATA_DIR.value,
    )
    return workdir


def steps_for(workdir: str, evaluations: int, begins: tuple[str, ...]) -> int | None:
    """The most sampling steps of so many evaluations; None if the sampler refuses that number.

    Args:
        workdir: of a run.
        evaluations: of its network for each sample.
        begins: gin parameters that say where samples begin.
    """
    model, _ = load_model(workdir, choose=lambda: config.overlay([], begins))
    settings = build_sample_settings(model)

    def taken(steps: int) -> int:
        settings.num_steps = steps
        return settings.evaluations(model)

    fewest, most = settings.sampler.allowed_steps(model.process)
    tried = range(2, 4 * evaluations)  # one that begins late leaves half of its steps out or more
    steps = 1 + bisect.bisect_right(tried, evaluations, key=taken)
    return steps if fewest <= steps <= (most or steps) else None


def train_and_score(
    model: str, ablations: tuple[str, ...], seed: int = 0, evaluations: int | None = None
) -> tuple[dict, str] | None:
    """Returns the results and the path of the samples that were scored.

    Args:
        model, ablations: names of gin files.
        seed: of training.
        evaluations: of the network for each sample; None is the model's own number of steps.

    Returns:
        None if the model's sampler does not take so many.
    """
    begins: tuple[str, ...] = ()
    if first := FIRST_STAGES.get(model):
        path = os.path.join(train(first, (), seed), "saved_model")
        begins = ("sample.prior = @RelayPrior()", f"RelayPrior.saved_model = {path!r}")
    workdir = train(model, ablations, seed)
    steps = steps_for(workdir, evaluations, begins) if evaluations else 0
    if steps is None:
        return None
    ending = f"{_NUM_STEPS.value}_{evaluations}" if evaluations else f"{_NUM_STEPS.value}"
    results, samples = (
        os.path.join(workdir, name) for name in (f"results_{ending}.json", f"samples_{ending}.npz")
    )
    kept = os.path.exists(samples) and "--overwrite" not in _EVAL_FLAG.value
    run(
        "evaluate.py",
        f"--workdir={workdir}",
        f"--gin_file={_EVAL_GIN_FILE.value}",
        f"--gin_param=evaluate.num_steps = {steps}",  # 0 is each its own
        *(f"--gin_param={parameter}" for parameter in begins),
        f"--output={results}",
        *(() if kept else (f"--save_samples={samples}",)),
        *_EVAL_FLAG.value,
        data_dir=_DATA_DIR.value,
    )
    with open(results) as file:
        return json.load(file), samples


def by_evaluations(rows) -> tuple[str, list[str]]:
    """A table of the first figure, and the samples of the last column, of the first seed."""
    columns = sorted(map(int, _EVALUATIONS.value))
    lines, samples, name = [], [], ""
    for number, (label, model, ablations, _) in enumerate(rows, 1):
        print(f"[{number}/{len(rows)}] {label}", flush=True)
        cells, drawn, sampler = [], None, ""
        for evaluations in columns:
            found = [
                train_and_score(model, ablations, int(seed), evaluations) for seed in _SEEDS.value
            ]
            if found[0] is None:
                cells.append("")
                continue
            drawn = found[0][1]
            name = next(iter(found[0][0]["figures"]))
            sampler = found[0][0]["protocol"]["sampler"]
            values = [result["figures"][name]["value"] for result, _ in found]
            cells.append(mean_and_range(values))
        lines.append(f"| {label} | {sampler.removesuffix('Sampler')} | {' | '.join(cells)} |")
        samples.append(drawn)
    head = f"| {name} | sampler | {' | '.join(f'{n} evaluations' for n in columns)} |"
    return "\n".join([head, "|" + "---|" * (len(columns) + 2), *lines]) + "\n", samples


def markdown(rows, results: list[dict]) -> str:
    """The table: what was measured, and the paper's figure beside it."""
    found = dict.fromkeys(name for result in results for name in result["figures"])
    names = [name for name in found if name != "loss"]  # losses are of different tasks
    lines = [
        "| model | " + " | ".join(names) + " | sampling steps | paper, FID on CIFAR-10 |",
        "|" + "---|" * (len(names) + 3),
    ]
    for (label, _, _, paper), result in zip(rows, results):
        values = [result["figures"].get(name, {}).get("value") for name in names]
        cells = ["" if value is None else f"{value:.3g}" for value in values]
        steps = result["protocol"]["num_steps"]
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {steps} | {paper} |")
    starred = any("*" in row[0] for row in rows)
    note = "\n\\* Not unconditional: starts from blurred training images.\n" if starred else ""
    return "\n".join(lines) + "\n" + note


def picture(rows, samples: list[str]) -> bytes:
    """A PNG: one row of scored samples for each model."""
    figure = Figure(figsize=(0.5 * _COLUMNS.value, 0.5 * len(rows)))
    axes = figure.subplots(len(rows), 1, gridspec_kw={"hspace": 0.08})
    for axis, (label, *_), path in zip(np.atleast_1d(axes), rows, samples):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(label, rotation=0, ha="right", va="center")
        if path is None:
            continue
        images = read_npz(path)["images"][: _COLUMNS.value]
        padded = np.pad(images, [(0, 0), (0, 0), (0, 1), (0, 0)])
        strip = np.concatenate(list(padded), axis=1)
        axis.imshow(strip.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    content = io.BytesIO()
    figure.savefig(content, dpi=150, bbox_inches="tight")
    return content.getvalue()


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --folder=DIR")
    rows = TABLES[_TABLE.value] + (SECTION_3 if _SECTION_3.value else [])
    rows = rows + (SINCE_2022 if _SINCE_2022.value else [])
    known = {row[1] for row in rows}
    wrong = sorted(set(_ONLY.value or []) - known)
    if wrong:
        raise UserError(f"--only: {', '.join(wrong)} is none of {', '.join(sorted(known))}")
    for flag in _EVAL_FLAG.value:
        if flag.startswith(("--output", "--save_samples", "--workdir")):
            raise UserError(f"--eval_flag={flag}: this command chooses that itself, in --folder")
    for option in (_GIN_FOLDER, _EVAL_GIN_FILE):
        if not os.path.exists(option.value):
            raise UserError(f"--{option.name}={option.value} does not exist")
    for option in (_SEEDS, _EVALUATIONS):
        if not all(number.isdecimal() for number in option.value):
            given = ",".join(option.value)
            raise UserError(f"--{option.name}={given} must be whole numbers, for instance 0,1,2")
    if len(_SEEDS.value) > 1 and not _EVALUATIONS.value:
        raise UserError("--seeds of more than one goes with --evaluations, whose table has means")
    for option in (_NUM_STEPS, _COLUMNS):
        if option.value < 1:
            raise UserError(f"--{option.name}={option.value} must be at least 1")
    rows = [row for row in rows if not _ONLY.value or row[1] in _ONLY.value]
    name = "_".join([f"table_{_TABLE.value}", *(_ONLY.value or [])])
    if _EVALUATIONS.value:
        name += "_by_evaluations"
        table, samples = by_evaluations(rows)
    else:
        scored = []
        for number, (label, model, ablations, _) in enumerate(rows, 1):
            print(f"[{number}/{len(rows)}] {label}", flush=True)
            scored.append(train_and_score(model, ablations))
        results, samples = (list(values) for values in zip(*scored))
        table = markdown(rows, results)
    path = os.path.join(_FOLDER.value, name)
    write_atomically(f"{path}.md", table)
    write_atomically(f"{path}.png", picture(rows, samples))
    print(f"{table}\nwrote {path}.md and {path}.png")


if __name__ == "__main__":
    app.run(main)
