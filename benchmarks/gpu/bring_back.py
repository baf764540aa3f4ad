"""Makes a workdir and its SavedModel of the weights that `run.py` sent back.

python benchmarks/gpu/bring_back.py --lowered=lowered --back=back --workdir=runs/cifar10_gpu

The checkpoint has the averaged weights, as averages and as weights; the optimizer's moments stay
on the machine that trained. So the run can be sampled, evaluated and exported like any other, and
another can begin with it: --init_from=runs/cifar10_gpu.
"""

import glob
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from absl import app, logging

from bdm_tf import config
from bdm_tf.exporting import finish_run
from bdm_tf.fitted import keep_spectrum, load_spectrum, prepare_prior
from bdm_tf.image_grids import write_grid
from bdm_tf.model import build_model
from bdm_tf.stablehlo.steps import make_trainer, setting
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.files import read_npz
from bdm_tf.system.paths import define_path
from bdm_tf.training.checkpoints import Checkpoints
from bdm_tf.training.workdir import Workdir

_LOWERED = define_path("lowered", None, "What lower.py wrote.")
_BACK = define_path("back", None, "What run.py wrote.")
_WORKDIR = define_path("workdir", None, "The folder to make.")
_GRID = 100


def sent(name: str) -> dict[str, np.ndarray]:
    """The arrays of all parts of a file that was sent in parts."""
    paths = sorted(glob.glob(os.path.join(glob.escape(_BACK.value), f"{name}-*.npz")))
    if not paths:
        raise UserError(f"--back={_BACK.value} has no {name}-*.npz: run.py writes them")
    found: dict[str, np.ndarray] = {}
    for path in paths:
        try:
            found |= read_npz(path)
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise UserError(f"{path} is damaged: {error}; send it again") from error
    return found


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --workdir=DIR")
    for flag in (_LOWERED, _BACK, _WORKDIR):
        if not flag.value:
            raise UserError(f"--{flag.name}=FOLDER is missing; README.md beside this file has it")
    if tf.io.gfile.exists(os.path.join(_WORKDIR.value, "config.gin")):
        raise UserError(f"--workdir={_WORKDIR.value} holds a run; give another folder")
    path = os.path.join(_LOWERED.value, "config.gin")
    if not tf.io.gfile.exists(path):
        raise UserError(f"--lowered={_LOWERED.value} holds no lowered run: lower.py writes one")
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    arrays = sent("weights")
    step, of_run = int(arrays.pop("step")), str(arrays.pop("run"))
    with tf.io.gfile.GFile(os.path.join(_LOWERED.value, "lowered.json")) as file:
        if json.load(file)["run"] != of_run:
            raise UserError(f"--back={_BACK.value} is of another run than {_LOWERED.value}")
    samples = {}
    if glob.glob(os.path.join(glob.escape(_BACK.value), "samples-00-*.npz")):
        samples = sent("samples-00")
        if int(samples["step"]) != step:
            print(f"samples of step {samples['step']} are left out: the weights are of {step}")
            samples = {}
    config.parse_text(text)
    model = build_model()
    trainer, state = make_trainer(model, setting("batch_size"))
    wanted = {f"ema_weights/{i}": v for i, v in enumerate(state.ema_weights)}
    if wanted.keys() != arrays.keys():
        raise UserError(
            f"--back={_BACK.value} has {len(arrays)} weights, --lowered={_LOWERED.value} "
            f"{len(wanted)}: they are of two runs, or a part is missing"
        )
    for name, variable in wanted.items():
        if arrays[name].shape != tuple(variable.shape):
            raise UserError(f"--back={_BACK.value}: {name} is of another network")
        variable.assign(arrays[name])
        state.weights[int(name.partition("/")[2])].assign(arrays[name])
    state.step.assign(step)
    prepare_prior(model, _LOWERED.value)
    files = Workdir(_WORKDIR.value)
    files.claim(text)
    if tf.io.gfile.exists(prior := os.path.join(_LOWERED.value, "prior.npz")):
        tf.io.gfile.copy(prior, os.path.join(_WORKDIR.value, "prior.npz"))
    if load_spectrum(model, _LOWERED.value):
        keep_spectrum(model, _WORKDIR.value)
    Checkpoints(state.checkpoint(), files.checkpoints, keep=1, keep_every=0).save(step)
    files.close()
    print(f"step {step}: {_WORKDIR.value}/checkpoints")
    if samples:
        path = os.path.join(_WORKDIR.value, "samples", "drawn_there.png")
        write_grid(samples["images"][:_GRID], path)
    finish_run(model, step, _WORKDIR.value)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
