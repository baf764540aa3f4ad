"""Draws images: python -m bdm_tf.sample --saved_model=DIR --output=grid.png"""

import os

from absl import flags

from bdm_tf.system.errors import UserError, check_seed, exits_on_user_error
from bdm_tf.system.paths import check_ending, define_path
from bdm_tf.system.terminal import load_tensorflow, run_command

_SAVED_MODEL = define_path("saved_model", None, "Folder of the SavedModel.", literal=True)
_OUTPUT = define_path("output", None, "A grid (.png) or the images themselves (.npz).")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", None, "How many images; 64 unless told, 8 a class with --label=each."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise, from 0 to 2^31 - 1.")
_FIRST = flags.DEFINE_integer("first", 0, "Number of the first image of this seed.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 0, "Sampling steps; 0 is the number at export.")
_LABEL = flags.DEFINE_string(
    "label", None, "A class by name or number, or each: a row a class. Drawn at random unless told."
)
_GUIDANCE = flags.DEFINE_float(
    "guidance", None, "How much more than 1 labels are obeyed; the model's own unless told."
)
_SHARE = flags.DEFINE_enum(
    "share", None, ["noise", "start"], "What all images have in common: the steps' noise, or z_1."
)
_INTERPOLATE = flags.DEFINE_integer(
    "interpolate", None, "Another seed: the images lie on the way from --seed to it."
)
_TRAJECTORY = define_path(
    "trajectory", None, "The way to the first four images, z_t above x_hat (.png) or a film (.gif)."
)
_NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", None, "Of --trajectory, evenly over the steps; 8 unless told."
)
_MOST_FRAMES = 1000
_DEFAULT, _MOST = 64, 2**31 - 1


def _check_trajectory() -> None:
    path, frames = _TRAJECTORY.value, _NUM_FRAMES.value
    check_ending("--trajectory", path, (".png", ".gif"))
    if path and _OUTPUT.value and os.path.realpath(path) == os.path.realpath(_OUTPUT.value):
        raise UserError(f"--trajectory={path} is --output, too: give another name")
    if frames is not None and not path:
        raise UserError("--num_frames goes with --trajectory=way.png|way.gif only")
    if frames is not None and not 2 <= frames <= _MOST_FRAMES:
        raise UserError(f"--num_frames={frames} must lie between 2 and {_MOST_FRAMES}")


def _check_relation() -> None:
    other = _INTERPOLATE.value
    if other is None:
        return
    check_seed("--interpolate", other)
    if _SHARE.value:
        raise UserError(
            f"--share={_SHARE.value} does not go with --interpolate, whose images share the noise "
            "of the steps and have starts of their own: leave out one of the two"
        )
    if other == _SEED.value:
        raise UserError(f"--interpolate={other} is --seed, too: give another seed to go to")
    if _NUM_IMAGES.value == 1:
        raise UserError("--interpolate goes from one image to another: give --num_images=2 or more")


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --output=grid.png")
    if not _SAVED_MODEL.value or not (_OUTPUT.value or _TRAJECTORY.value):
        raise UserError(
            "usage: python -m bdm_tf.sample --saved_model=DIR --output=grid.png|images.npz, "
            "or --trajectory=way.png|way.gif"
        )
    check_ending("--output", _OUTPUT.value, (".png", ".npz"))
    check_seed("--seed", _SEED.value)
    for flag, least in ((_NUM_IMAGES, 1), (_NUM_STEPS, 0), (_FIRST, 0)):
        if flag.value is not None and not least <= flag.value <= _MOST:
            raise UserError(f"--{flag.name}={flag.value} must lie between {least} and {_MOST}")
    num_images = _NUM_IMAGES.value or _DEFAULT
    if _FIRST.value + num_images > _MOST:
        raise UserError(
            f"--first={_FIRST.value} and --num_images={num_images} go beyond the last image of a "
            f"seed, number {_MOST - 1}"
        )

    _check_trajectory()
    _check_relation()

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf.relations import Relation
    from bdm_tf.sample_files import sample_to_file

    sample_to_file(
        _SAVED_MODEL.value,
        _OUTPUT.value,
        num_images=_NUM_IMAGES.value,
        seed=_SEED.value,
        first=_FIRST.value,
        num_steps=_NUM_STEPS.value,
        label=_LABEL.value,
        guidance=_GUIDANCE.value,
        relation=Relation(_SHARE.value, _INTERPOLATE.value),
        trajectory=_TRAJECTORY.value,
        num_frames=_NUM_FRAMES.value,
    )


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
