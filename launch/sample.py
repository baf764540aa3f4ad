"""Draws images: python launch/sample.py --saved_model=DIR --output=grid.png"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags, logging

from bdm_tf.errors import UserError, exits_on_user_error

_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "Folder of the SavedModel.")
_OUTPUT = flags.DEFINE_string("output", None, "A grid (.png) or the images themselves (.npz).")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 64, "How many images.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise.")
_FIRST = flags.DEFINE_integer("first", 0, "Number of the first image of this seed.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 0, "Sampling steps; 0 is the number at export.")


@exits_on_user_error
def main(argv: list[str]) -> None:
    if not _SAVED_MODEL.value or not _OUTPUT.value or len(argv) > 1:
        raise UserError("usage: launch/sample.py --saved_model=DIR --output=grid.png|images.npz")
    if not _OUTPUT.value.endswith((".png", ".npz")):
        raise UserError(f"--output={_OUTPUT.value} must end in .png or .npz")
    if _NUM_IMAGES.value <= 0:
        raise UserError(f"--num_images={_NUM_IMAGES.value} must be at least 1")
    if _NUM_STEPS.value < 0:
        raise UserError(f"--num_steps={_NUM_STEPS.value} must not be negative")
    if _FIRST.value < 0:
        raise UserError(f"--first={_FIRST.value} must not be negative")

    from bdm_tf.figures import sample_to_file

    sample_to_file(
        _SAVED_MODEL.value,
        _OUTPUT.value,
        num_images=_NUM_IMAGES.value,
        seed=_SEED.value,
        first=_FIRST.value,
        num_steps=_NUM_STEPS.value,
    )


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)  # TensorFlow and TFDS report every file they touch
    app.run(main)
