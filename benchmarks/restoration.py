"""How near the truth are restored digits? By task, model, and way of filling in.

python benchmarks/restoration.py --run=blur=runs/digits --run="no blur=runs/digits_without"

takes finished runs of `gin/digits.gin` and prints a table of PSNR / SSIM over images of the test
split, on which nothing was trained: of one sample, of the mean of --samples, and of what is given;
and the Fréchet distance, in pixels, of all samples to the images. Runs of one name, of other
training seeds, are one row: means over them, with the least and the most PSNR and distance.

With --samplers=repaint known pixels take the place of those of z_t, as RePaint has it, and not of
those of the estimate.
"""

import collections
import itertools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from absl import app, flags
from tables import mean_and_range

from bdm_tf.data import TFDSImages
from bdm_tf.data.pipeline import to_uint8, to_unit_range
from bdm_tf.evaluation.frechet import frechet_distance
from bdm_tf.evaluation.statistics import GaussianStatistics
from bdm_tf.model import build_sample_settings, load_model
from bdm_tf.restoration.job import scores
from bdm_tf.restoration.known import Known, KnownPixels
from bdm_tf.restoration.tasks import Deblur, Inpaint, Superresolve
from bdm_tf.sampling import AncestralSampler, FittedGrid
from bdm_tf.system.errors import exits_on_user_error

SHAPE = (8, 8, 1)
NOISE = 0.02
MEANS = "superresolve 2 of 2x2 means"
UNKNOWN = np.broadcast_to(np.arange(8) < 4, (8, 8))
TASKS = {
    "deblur 1": Deblur(SHAPE, 1.0, NOISE),
    "deblur 2": Deblur(SHAPE, 2.0, NOISE),
    "superresolve 2": Superresolve(SHAPE, 2, 0.0),
    "inpaint the left half": Inpaint(SHAPE, UNKNOWN),
}

_RUN = flags.DEFINE_multi_string("run", [], "NAME=WORKDIR, several times, also of one name.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where TFDS keeps the digits.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 359, "Of the 359 images.", 1, 359)
_WAYS = flags.DEFINE_list("ways", ["10x5"], "Steps x how often each is taken.")
_SAMPLERS = flags.DEFINE_list("samplers", ["own"], "The run's own, ancestral, or repaint.")
_TASKS = flags.DEFINE_list("tasks", [*TASKS, MEANS], "Which of the tasks.")
_SAMPLES = flags.DEFINE_integer("samples", 8, "Of each image.")


class Replacing(AncestralSampler):
    """Known pixels of z_s are those of the image, diffused to s (Lugmayr et al., 2022)."""

    def __init__(self, seen):
        super().__init__(grid=FittedGrid())
        self._x = to_unit_range(seen)

    def step(self, denoiser, z_t, *, s, noise, is_last, **given):
        process = denoiser.process
        u_s, memory = super().step(denoiser, z_t, s=s, noise=noise, is_last=is_last, **given)
        times, eps = tf.fill([len(self._x)], s), process.basis.to_pixel(noise)
        known = tf.where(is_last, self._x, process.diffuse(self._x, times, eps))
        z_s = tf.where(UNKNOWN[..., None], process.basis.to_pixel(u_s), known)
        return process.basis.to_frequency(z_s), memory


def drawn(model, sampler, projection, num_steps, repeats):
    """Samples uint8 `[N, S, H, W, C]`."""
    denoiser, shape = model.denoiser(projection), (_NUM_IMAGES.value, *SHAPE)

    @tf.function(autograph=False)
    def draw(seed):
        given = {"seed": seed, "num_steps": num_steps, "repeats": repeats}
        return to_uint8(sampler(denoiser, shape=shape, **given))

    return np.stack([draw(tf.constant([s, 0])) for s in range(_SAMPLES.value)], axis=1)


def report(name, what, truth, of_runs):
    """Prints a row of the table from samples uint8 `[N, S, H, W, C]` of each run of a name."""
    cells = []
    for kind in (_of_one, _of_the_mean):
        values = np.array([kind(truth, samples) for samples in of_runs])
        cells.append(f"{mean_and_range(values[:, 0], 2)} / {values[:, 1].mean():.3f}")
    distances = [frechet_distance(statistics(samples), statistics(truth)) for samples in of_runs]
    cells.append(mean_and_range(distances, 2))
    print(f"| {name} | {what} | {' | '.join(cells)} |", flush=True)


def _of_one(truth, samples):
    return np.mean([scores(truth, samples[:, s]) for s in range(samples.shape[1])], axis=0)


def _of_the_mean(truth, samples):
    return scores(truth, np.rint(samples.mean(1)).astype(np.uint8))


def statistics(images):
    """Of uint8 images `[..., H, W, C]`, in pixels of [-1, 1]."""
    found = GaussianStatistics(int(np.prod(SHAPE)))
    found.update(images.reshape(-1, found.mu.size) / 127.5 - 1.0)
    return found


def projected(task, seen, after):
    if isinstance(task, Inpaint):
        return KnownPixels(to_unit_range(seen), UNKNOWN[..., None], after=after)
    return Known(**task.arguments(seen), after=after)


@exits_on_user_error
def main(argv):
    _, held_out = TFDSImages("digits").load(_DATA_DIR.value)
    truth = held_out.eval_images(_NUM_IMAGES.value)
    print("| model | task | one sample | mean | Fréchet |\n|---|---|---|---|---|")
    for task_name, task in TASKS.items():
        seen = task.observe(truth, 0)
        given = {"known part": task.known_part(None, seen), **task.baselines(seen)}
        for name, pictures in given.items():
            report("(no model)", f"{task_name}: {name}", truth, [pictures[:, None]])
    boxes = np.rint(truth.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))).astype(np.uint8)
    seen = {what: (task, task.observe(truth, 0)) for what, task in TASKS.items()}
    seen[MEANS] = TASKS["superresolve 2"], boxes
    runs = collections.defaultdict(list)
    for run in _RUN.value:
        name, _, workdir = run.partition("=")
        model, _ = load_model(workdir)
        runs[name].append((model, build_sample_settings(model)))
    ways = itertools.product(_SAMPLERS.value, _TASKS.value, _WAYS.value)
    for (name, members), (sampler, what, way) in itertools.product(runs.items(), list(ways)):
        task, pictures = seen[what]
        if sampler == "repaint" and not isinstance(task, Inpaint):
            continue
        steps, repeats = map(int, way.split("x"))
        of_runs = []
        for model, own in members:
            projection = projected(task, pictures, own.projection)
            if sampler == "repaint":
                by, projection = Replacing(pictures), own.projection
            else:
                by = own.sampler if sampler == "own" else AncestralSampler(grid=FittedGrid())
            of_runs.append(drawn(model, by, projection, steps, repeats))
        report(name, f"{what}, {sampler}, {way}", truth, of_runs)


if __name__ == "__main__":
    app.run(main)
