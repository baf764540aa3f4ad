"""Puts a training run into a folder that JAX and NumPy can run, where there is no TensorFlow.

python benchmarks/gpu/lower.py --gin_file=gin/cifar10_small.gin --data_dir=DIR --output=lowered

writes the training step, many a call, the loss of the evaluation images and the sampler as
StableHLO; the state at step 0; and the images. `run.py` trains there, `bring_back.py` makes a
workdir and a SavedModel of what it sends back. README.md beside this file has the commands.
"""

import gzip
import hashlib
import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.fitted import find_spectrum, keep_spectrum, needs_spectrum, prepare_prior
from bdm_tf.model import build_model, build_sample_settings
from bdm_tf.stablehlo.functional import Pure, pure
from bdm_tf.stablehlo.lowering import lower_pure
from bdm_tf.stablehlo.steps import make_trainer, sampling_loop, setting, use_defaults
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.files import write_atomically, write_npz
from bdm_tf.system.paths import define_path

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, _ROOT)
from benchmarks.gpu.packing import pack
from benchmarks.gpu.programs import evaluation, named_variables, training

_PART = 5000  # images in a file

_GIN_FILE = flags.DEFINE_multi_string("gin_file", None, "Gin file; may be given several times.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], 'For instance "train.batch_size = 64".')
_DATA_DIR = define_path("data_dir", None, "TFDS's folder, or a folder of images.")
_OUTPUT = define_path("output", None, "The folder to write.")
_STEPS = flags.DEFINE_integer("steps_per_call", 100, "Training steps that a call takes.")
_SAMPLES = flags.DEFINE_integer("samples_per_call", 500, "Images that a call of the sampler draws.")
_WEIGHTS = flags.DEFINE_enum(
    "weights",
    "file",
    ["file", "drawn"],
    "Initial weights in a file; or drawn there, of the same standard deviation.",
)
_IMAGES = flags.DEFINE_bool("images", True, "Write the images too.")


def write_programs(
    programs: dict[str, Pure], variables: dict[str, tf.Variable], folder: str
) -> dict:
    """Writes programs; returns what is to be known of each, by name."""
    names = {variable.handle._id: name for name, variable in variables.items()}
    told = {}
    for name, program in programs.items():
        print(f"lowering {name}", flush=True)
        module = lower_pure(program)
        path = os.path.join(folder, f"{name}.mlir.gz")
        write_atomically(path, gzip.compress(module.text.encode(), mtime=0))
        told[name] = {
            "aliases": module.aliases,
            "variables": [names[handle._id] for handle in program.handles],
            "num_arguments": program.num_arguments,
            "arguments": [[list(s.shape), s.dtype.name] for s in program.specs],
        }
    return told


def write_state(variables: dict[str, tf.Variable], folder: str) -> list[dict]:
    """Writes the state at step 0; returns how to make it there, in order.

    Most of it is one number over and over (zero moments) or a copy (averages): these do not travel.
    """
    made, arrays = [], {}
    for name, variable in variables.items():
        value = variable.numpy()
        how = {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
        group, _, number = name.partition("/")
        if (value == value.flat[0]).all():
            how["fill"] = value.flat[0].item()
        elif group == "ema_weights" and (value == variables[f"weights/{number}"].numpy()).all():
            how["same_as"] = f"weights/{number}"
        elif group == "weights" and _WEIGHTS.value == "drawn":
            how["deviation"] = float(value.std())
        else:
            arrays[name] = value
        made.append(how)
    write_npz(os.path.join(folder, "state.npz"), arrays)
    return made


def write_images(images: np.ndarray, name: str, folder: str) -> list[str]:
    files = []
    for start in range(0, len(images), _PART):
        files.append(f"{name}-{start // _PART:02d}.xz")
        content = pack(images[start : start + _PART])
        write_atomically(os.path.join(folder, files[-1]), content)
    return files


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --gin_file=FILE")
    if not _GIN_FILE.value or not _OUTPUT.value:
        raise UserError("--gin_file and --output are needed, for instance --output=lowered")
    if tf.io.gfile.exists(os.path.join(_OUTPUT.value, "lowered.json")):
        raise UserError(f"--output={_OUTPUT.value} holds a lowered run; give another folder")
    tf.io.gfile.makedirs(_OUTPUT.value)
    config.parse(_GIN_FILE.value, _GIN_PARAM.value)
    images, evaluated = setting("data").load(_DATA_DIR.value)
    if setting("label_dropout") is not None:
        raise UserError("labels are not lowered: give train.label_dropout = None")
    use_defaults(images.image_shape)
    keras.utils.set_random_seed(setting("seed"))
    model = build_model()
    settings = build_sample_settings(model)

    def batches():
        return images.in_order(500)

    if needs_spectrum(model, settings):
        spectrum = find_spectrum(model, _OUTPUT.value, batches)
        config.bind("Model.spectrum_sha256", spectrum.sha256())
        keep_spectrum(model, _OUTPUT.value)
    prepare_prior(model, _OUTPUT.value, batches)
    trainer, state = make_trainer(model, setting("batch_size"))
    if setting("batch_size") > images.num_images:
        raise UserError(
            f"train.batch_size={setting('batch_size')} is more than the {images.num_images} images"
        )
    programs = {
        "train": training(
            trainer,
            model.image_shape,
            images.num_images,
            _STEPS.value,
            setting("seed"),
            setting("flip"),
        )
    }
    count = min(setting("eval_images"), evaluated.num_images if evaluated else 0)
    if count:
        programs["loss"] = evaluation(model, count)
    sample, specs = sampling_loop(model, _SAMPLES.value, 1)
    programs["sample"] = pure(sample, specs)
    variables = named_variables(model, state)
    told = {
        "programs": write_programs(programs, variables, _OUTPUT.value),
        "state": write_state(variables, _OUTPUT.value),
        "image_shape": list(model.image_shape),
        "batch_size": trainer.batch_size,
        "steps_per_call": _STEPS.value,
        "samples_per_call": _SAMPLES.value,
        "evaluations": settings.sampler.evaluations(settings.num_steps),
        "parameters": sum(v.shape.num_elements() for v in state.weights),
        "num_images": images.num_images,
        "seed": setting("seed"),
        "run": hashlib.sha256(config.operative_text().encode()).hexdigest()[:16],
    }
    if _IMAGES.value:
        print("packing images", flush=True)
        told["images"] = write_images(np.concatenate(list(batches())), "images", _OUTPUT.value)
        if count:
            found = evaluated.eval_images(count)
            told["evaluation"] = write_images(found, "evaluation", _OUTPUT.value)
    write_atomically(os.path.join(_OUTPUT.value, "config.gin"), config.operative_text())
    write_atomically(os.path.join(_OUTPUT.value, "lowered.json"), json.dumps(told, indent=1))
    sizes = [os.path.getsize(os.path.join(_OUTPUT.value, n)) for n in os.listdir(_OUTPUT.value)]
    print(f"wrote {_OUTPUT.value}: {sum(sizes) / 2**20:.1f} MiB")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
