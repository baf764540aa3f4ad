"""Restores images: python -m bdm_tf.restore --saved_model=DIR --task=deblur --sigma_blur=1.5 ..."""

import difflib
import os

from absl import flags

from bdm_tf.system.errors import UserError, check_seed, exits_on_user_error
from bdm_tf.system.paths import check_ending, define_path
from bdm_tf.system.terminal import load_tensorflow, run_command

# Flags of each task: those that it needs, and those that it takes besides.
_TASKS = {
    "vary": ((), ("t",)),
    "deblur": (("sigma_blur",), ("noise", "truth", "degrade", "repeats")),
    "superresolve": (("factor",), ("noise", "truth", "degrade", "repeats")),
    "inpaint": (("mask",), ("truth", "degrade", "repeats")),
}
_SAVED_MODEL = define_path("saved_model", None, "Folder of the SavedModel.", literal=True)
_INPUT = define_path("input", None, "An image, a folder of images, or arrays (.npz, .npy).")
_TASK = flags.DEFINE_string("task", None, f"One of {', '.join(_TASKS)}.")
_OUTPUT = define_path("output", None, "A grid, a row an image (.png), or arrays (.npz).")
_SAMPLES = flags.DEFINE_integer("samples", 4, "Samples of each image.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise, from 0 to 2^31 - 1.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 0, "Sampling steps; 0 is the number at export.")
_T = flags.DEFINE_float("t", 0.3, "vary: how far to go, above 0 to 1.")
_SIGMA_BLUR = flags.DEFINE_float("sigma_blur", 0.0, "deblur: of the Gaussian blur, in pixels.")
_FACTOR = flags.DEFINE_integer("factor", 0, "superresolve: how many times the size.")
_NOISE = flags.DEFINE_float(
    "noise", 0.0, "deblur, superresolve: of the input, standard deviation in pixels of [-1, 1]."
)
_MASK = define_path("mask", None, "inpaint: an image that is white where pixels are to be drawn.")
_TRUTH = define_path("truth", None, "The originals, to compare with: like --input.")
_DEGRADE = flags.DEFINE_bool("degrade", False, "The input is the original: degrade it first.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "How often each step is taken; not for vary.")
_LABEL = flags.DEFINE_string("label", None, "The class of the images by name or number.")
_GUIDANCE = flags.DEFINE_float(
    "guidance", None, "How much more than 1 the label is obeyed; the model's own unless told."
)
_MOST = 2**31 - 1


def _check_flags(argv: list[str]) -> None:
    task = _TASK.value
    if len(argv) > 1:
        raise UserError(
            f"unexpected arguments {argv[1:]}; flags look like --output=grid.png, and several "
            "images are given as their folder"
        )
    if not all([_SAVED_MODEL.value, _INPUT.value, _OUTPUT.value, task]):
        raise UserError(
            "usage: python -m bdm_tf.restore --saved_model=DIR --input=image.png|DIR|images.npz "
            f"--task={'|'.join(_TASKS)} --output=grid.png|arrays.npz"
        )
    if task not in _TASKS:
        near = difflib.get_close_matches(str(task), _TASKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(_TASKS)}"
        raise UserError(f"--task={task} is no task: {hint}")
    check_ending("--output", _OUTPUT.value, (".png", ".npz"))
    needed, others = _TASKS[task]
    for flag in (_T, _SIGMA_BLUR, _FACTOR, _NOISE, _MASK, _TRUTH, _DEGRADE, _REPEATS):
        if flag.name in needed and not flag.present:
            raise UserError(f"--task={task} needs --{flag.name} ({flags.FLAGS[flag.name].help})")
        if flag.present and flag.name not in (*needed, *others):
            raise UserError(f"--{flag.name} does not go with --task={task}")
    if _DEGRADE.value and _TRUTH.value:
        raise UserError("--degrade takes the input as the truth: leave out --truth")
    written = os.path.realpath(_OUTPUT.value)
    for given in (_INPUT, _MASK, _TRUTH):
        path = os.path.realpath(given.value or "")
        if given.value and os.path.commonpath([written, path]) == path:
            raise UserError(
                f"--output={_OUTPUT.value} is in --{given.name}={given.value}, which is read: "
                "give another place"
            )
    check_seed("--seed", _SEED.value)
    for counted, least, most in (
        (_SAMPLES, 1, 10_000),
        (_NUM_STEPS, 0, _MOST),
        (_REPEATS, 1, _MOST),
    ):
        if not least <= counted.value <= most:
            raise UserError(f"--{counted.name}={counted.value} must lie between {least} and {most}")


def _make_task(info: dict):
    """The task, for a model of that `model_info`."""
    from bdm_tf.restoration import tasks
    from bdm_tf.restoration.images import read_mask

    shape, noise = info["image_shape"], _NOISE.value
    if _TASK.value == "vary":
        return tasks.Vary(shape, _T.value)
    if _TASK.value == "inpaint":
        return tasks.Inpaint(shape, read_mask(_MASK.value, shape[:2]))
    if info["basis"] != "DCT":
        raise UserError(
            f"--task={_TASK.value} needs a model of the DCT, whose coefficients a blur scales; "
            f"this one has {info['basis']}: give --task=vary or inpaint, or another model"
        )
    if _TASK.value == "deblur":
        return tasks.Deblur(shape, _SIGMA_BLUR.value, noise)
    return tasks.Superresolve(shape, _FACTOR.value, noise)


@exits_on_user_error
def main(argv: list[str]) -> None:
    _check_flags(argv)

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf.restoration.job import restore_to_file

    restore_to_file(
        _SAVED_MODEL.value,
        _make_task,
        _OUTPUT.value,
        input=_INPUT.value,
        truth=_TRUTH.value,
        degrade=_DEGRADE.value,
        num_samples=_SAMPLES.value,
        seed=_SEED.value,
        num_steps=_NUM_STEPS.value,
        repeats=_REPEATS.value,
        label=_LABEL.value,
        guidance=_GUIDANCE.value,
    )


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
