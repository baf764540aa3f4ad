"""How good are samples of few network evaluations? By sampler, time grid, projection and recipe.

python benchmarks/few_steps.py

trains `gin/digits.gin` ("spectral") and the paper's model ("paper") for each blur and seed, or
takes the runs that are in --folder, and scores every combination of --samplers, --grids and
--projections at each number of --evaluations by the Frechet distance to all images. Rows are added
to FOLDER/results.jsonl and never measured twice: the same command goes on where it was stopped, and
others add to the table. It ends with few_steps.md, few_steps.png and a grid of samples a row.

On CIFAR-10, with features and statistics from files:

python benchmarks/few_steps.py --folder=runs/few_steps_cifar10 --blurs=0,20 --seeds=0 \
    --recipe=spectral=gin/cifar10_small.gin --data_dir=DIR --features=DIR \
    --statistics=train.npz --num_images=5000
"""

import json
import os
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gin
import matplotlib
import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from commands import ROOT, run
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from tqdm import tqdm

from bdm_tf import projections, sampling
from bdm_tf.data.pipeline import to_uint8
from bdm_tf.evaluation.features import make_features
from bdm_tf.evaluation.frechet import frechet_distance
from bdm_tf.evaluation.statistics import GaussianStatistics
from bdm_tf.fitted import prepare_trust
from bdm_tf.image_grids import write_grid
from bdm_tf.model import load_model, use_config
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.files import read_npz, write_atomically
from bdm_tf.system.paths import define_path
from bdm_tf.training import loop  # noqa: F401, for gin

matplotlib.use("Agg")
BATCH, SHOWN, FAR = 250, 64, 2.0
SAMPLERS = {
    "ancestral": lambda grid: sampling.AncestralSampler(grid=grid),
    "ddim": lambda grid: sampling.DDIMSampler(0.0, grid),
    "ddim_half": lambda grid: sampling.DDIMSampler(0.5, grid),
    "2m": sampling.DPMSolver2MSampler,
    "heun": sampling.HeunSampler,
    "angle": sampling.AngleSampler,
}
GRIDS = {
    "uniform": sampling.UniformGrid,
    "quadratic": sampling.PowerGrid,
    "logsnr": sampling.LogSNRGrid,
    "karras": sampling.KarrasGrid,
    "fitted": sampling.FittedGrid,
}
PROJECTIONS = {
    "none": projections.NoProjection,
    "pixel": projections.PixelClip,
    "dynamic": projections.DynamicThreshold,
    "spectral2.5": lambda: projections.SpectralClip(2.5),
    "spectral3": lambda: projections.SpectralClip(3.0),
    "shrink": projections.SpectralShrink,
}

_FOLDER = define_path("folder", "runs/few_steps", "Where runs and results are.")
_RECIPE = flags.DEFINE_multi_string(
    "recipe",
    [f"spectral={ROOT}/gin/digits.gin", f"paper={ROOT}/gin/digits/blurring_diffusion.gin"],
    "NAME=GIN_FILE, several times.",
)
_BLURS = flags.DEFINE_list("blurs", ["0.0", "4.0", "20.0"], "sigma_B,max.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of training.")
_SAMPLERS = flags.DEFINE_list("samplers", ["ancestral", "angle"], ", ".join(SAMPLERS))
_GRIDS = flags.DEFINE_list("grids", ["fitted"], ", ".join(GRIDS))
_PROJECTIONS = flags.DEFINE_list("projections", ["none"], ", ".join(PROJECTIONS))
_EVALUATIONS = flags.DEFINE_list(
    "evaluations", ["5", "10", "20", "50"], "Of the network, an image; Heun takes one less of 10."
)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 10_000, "Samples a row.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 0, "Of training; 0 is the gin file's number.")
_FEATURES = define_path("features", "pixels", "See launch/evaluate.py.")
_STATISTICS = define_path("statistics", None, "Real mu and sigma; default: all images'.")
_DATA_DIR = define_path("data_dir", None, "TFDS's folder.")


def train(recipe: str, gin_file: str, blur: str, seed: str) -> str:
    """Trains a run, or goes on with it; returns its workdir."""
    workdir = os.path.join(_FOLDER.value, f"{recipe}_blur{float(blur)}_seed{seed}")
    parameters = [f"BlurSchedule.sigma_blur_max = {float(blur)}", f"train.seed = {seed}"]
    if _NUM_STEPS.value:
        parameters.append(f"train.num_steps = {_NUM_STEPS.value}")
    if not os.path.exists(os.path.join(workdir, "saved_model")):
        run(
            "train.py",
            f"--gin_file={gin_file}",
            f"--workdir={workdir}",
            *(f"--gin_param={parameter}" for parameter in parameters),
            data_dir=_DATA_DIR.value,
        )
    return workdir


class Scorer:
    """Draws from runs and compares with the real images."""

    def __init__(self):
        features = make_features(_FEATURES.value)
        self.features = features.name
        self._extract = tf.function(lambda x: features(x)["features"], reduce_retracing=True)
        self._real = None

    def real(self, source) -> GaussianStatistics:
        """Statistics of the real images, those of all splits unless they are given."""
        if self._real is None and _STATISTICS.value:
            arrays = read_npz(_STATISTICS.value)
            count = int(arrays.get("n", 2))
            self._real = GaussianStatistics.of(count, arrays["mu"], arrays["sigma"])
        if self._real is None:
            for images in source().load(_DATA_DIR.value):
                for batch in images.in_order(BATCH) if images else ():
                    rows = self._extract(batch).numpy()
                    self._real = self._real or GaussianStatistics(rows.shape[1])
                    self._real.update(rows)
        return self._real

    def row(self, model, sampler, projection, evaluations: int, picture: str) -> dict:
        """The distance of samples, and how far beyond [-1, 1] their pixels reach."""
        steps = (evaluations + 1) // 2 if sampler.evaluations(2) > 2 else evaluations
        denoiser = model.denoiser(projection)
        sampler.check(denoiser, steps)

        @tf.function(autograph=False)
        def draw(first):
            shape = (BATCH, *model.image_shape)
            return sampler(denoiser, shape=shape, seed=[0, 0], num_steps=steps, first=first)

        drawn, shown, far = None, [], 0
        farthest = 0.0
        for first in range(0, _NUM_IMAGES.value, BATCH):
            x = draw(tf.constant(first)).numpy()[: _NUM_IMAGES.value - first]
            reach = np.nan_to_num(np.abs(x), nan=np.inf).max((1, 2, 3))
            far, farthest = far + int((reach > FAR).sum()), max(farthest, float(reach.max()))
            images = to_uint8(np.nan_to_num(x, nan=0.0)).numpy()
            rows = self._extract(images).numpy()
            drawn = drawn or GaussianStatistics(rows.shape[1])
            drawn.update(rows)
            shown.extend(images[: max(0, SHOWN - len(shown))])
        write_grid(np.stack(shown), picture)
        distance = frechet_distance(drawn, self._real)
        return {"distance": distance, "beyond_2": far, "farthest": min(farthest, 1e9)}


def measured(path: str) -> list[dict]:
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def key(row: dict) -> tuple:
    names = "recipe blur seed step sampler grid projection evaluations num_images features"
    return tuple(row[name] for name in names.split())


def by_setting(rows: list[dict]) -> dict[tuple, dict[int, list[float]]]:
    """(blur, recipe, sampler, ..., training steps, images) to evaluations to distances."""
    found: dict[tuple, dict[int, list[float]]] = {}
    for row in rows:
        names = ("blur", "recipe", "sampler", "grid", "projection", "step", "num_images")
        setting = tuple(row[name] for name in names)
        found.setdefault(setting, {}).setdefault(row["evaluations"], []).append(row["distance"])
    return found


def markdown(rows: list[dict]) -> str:
    """A line a setting, a column a number of evaluations: the mean over seeds and their range."""
    columns = sorted({row["evaluations"] for row in rows})
    head = ["blur", "recipe", "sampler", "grid", "projection", "steps", "images", "seeds"]
    lines = ["| " + " | ".join([*head, *map(str, columns)]) + " |"]
    lines.append("|" + "---|" * (len(head) + len(columns)))
    for setting, found in sorted(by_setting(rows).items()):
        cells = []
        for column in columns:
            values = found.get(column, [])
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "")
        seeds = max(len(values) for values in found.values())
        lines.append("| " + " | ".join([*map(str, setting), str(seeds), *cells]) + " |")
    return "\n".join(lines) + "\n"


def label_of(setting: tuple) -> str:
    """A line's name; the number of images too, which distances depend on."""
    return ", ".join([*setting[1:5], f"{setting[6]} images"])


def picture(rows: list[dict]) -> Figure:
    """A panel a blur, a line a setting that was measured at three numbers or more."""
    blurs = sorted({row["blur"] for row in rows})
    columns = sorted({row["evaluations"] for row in rows})
    figure = Figure(figsize=(4.0 * len(blurs), 5.0), layout="constrained")
    panels = figure.subplots(1, len(blurs), sharey=True, squeeze=False)[0]
    lines = [item for item in sorted(by_setting(rows).items()) if len(item[1]) >= 3]
    labels = list(dict.fromkeys(label_of(setting) for setting, _ in lines))
    for panel, blur in zip(panels, blurs):
        for setting, found in lines:
            if setting[0] == blur:
                label = label_of(setting)
                x = sorted(found)
                colour = matplotlib.colormaps["tab20"](labels.index(label) % 20)
                dashes = "--" if setting[1] == "paper" else "-"
                means = [np.mean(found[n]) for n in x]
                panel.plot(x, means, f"o{dashes}", color=colour, label=label, markersize=3)
                ends = [[min(found[n]) for n in x], [max(found[n]) for n in x]]
                panel.fill_between(x, *ends, color=colour, alpha=0.2)
        panel.set(title=f"$\\sigma_{{B,max}}$ = {blur:g}", xscale="log", yscale="log")
        panel.set(xlabel="network evaluations an image")
        panel.set_xticks(columns, [str(n) for n in columns])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("Frechet distance")
    shown = {}
    for panel in panels:
        handles, names = panel.get_legend_handles_labels()
        shown |= dict(zip(names, handles))
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=len(blurs), fontsize=8)
    return figure


def chosen(flag, known: dict) -> list[str]:
    wrong = sorted(set(flag.value) - known.keys())
    if wrong:
        raise UserError(f"--{flag.name}: {', '.join(wrong)} is none of {', '.join(known)}")
    return flag.value


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --folder=DIR")
    combinations = [
        (s, g, p)
        for s in chosen(_SAMPLERS, SAMPLERS)
        for g in chosen(_GRIDS, GRIDS)
        for p in chosen(_PROJECTIONS, PROJECTIONS)
    ]
    recipes = [recipe.partition("=")[::2] for recipe in _RECIPE.value]
    runs = [(*r, blur, seed) for r in recipes for seed in _SEEDS.value for blur in _BLURS.value]
    os.makedirs(os.path.join(_FOLDER.value, "grids"), exist_ok=True)
    path = os.path.join(_FOLDER.value, "results.jsonl")
    rows, scorer = measured(path), Scorer()
    known = {key(row) for row in rows}
    for number, (recipe, gin_file, blur, seed) in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {recipe}, sigma_B,max {blur}, seed {seed}", flush=True)
        use_config(workdir := train(recipe, gin_file, blur, seed))  # for its data
        model, step = load_model(workdir)
        source = gin.query_parameter("train.data").scoped_configurable_fn
        scorer.real(source)
        if "shrink" in _PROJECTIONS.value:
            batches = partial(source().load(_DATA_DIR.value)[0].in_order, BATCH)
            prepare_trust(model, workdir, batches)
        for sampler, grid, projection in tqdm(combinations):
            for evaluations in map(int, _EVALUATIONS.value):
                row = {"recipe": recipe, "blur": float(blur), "seed": int(seed), "step": step}
                row |= {"sampler": sampler, "grid": grid, "projection": projection}
                row |= {"evaluations": evaluations, "num_images": _NUM_IMAGES.value}
                row |= {"features": scorer.features}
                if key(row) in known:
                    continue
                name = "_".join(map(str, key(row)[:-1])) + ".png"
                row |= scorer.row(
                    model,
                    SAMPLERS[sampler](GRIDS[grid]()),
                    PROJECTIONS[projection](),
                    evaluations,
                    os.path.join(_FOLDER.value, "grids", name),
                )
                rows.append(row)
                with open(path, "a") as file:
                    file.write(json.dumps(row) + "\n")
    table = markdown(rows)
    write_atomically(os.path.join(_FOLDER.value, "few_steps.md"), table)
    picture(rows).savefig(os.path.join(_FOLDER.value, "few_steps.png"), dpi=150)
    print(f"{table}\nwrote {_FOLDER.value}/few_steps.md and few_steps.png")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")  # each row traces a function of its own
    app.run(main)
