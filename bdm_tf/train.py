"""Trains a model: python -m bdm_tf.train --gin_file=gin/digits.gin"""

import os

from absl import flags

from bdm_tf import config
from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.paths import define_path
from bdm_tf.system.terminal import load_tensorflow, run_command

_GIN_FILE = flags.DEFINE_multi_string("gin_file", None, "Gin file; may be given several times.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], 'For instance "train.batch_size = 64".')
_WORKDIR = define_path("workdir", None, "The run's folder; default runs/<gin file>.", literal=True)
_DATA_DIR = define_path("data_dir", None, "TFDS's folder, or a folder of images.")
_INIT_FROM = define_path(
    "init_from",
    None,
    "A workdir or checkpoint whose averaged weights a new run begins with.",
    literal=True,
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "Where to train.",
)
_TPU = flags.DEFINE_string("tpu", None, "Name or address of a Cloud TPU.")
_ALLOW_CHANGES = flags.DEFINE_bool(
    "allow_changes",
    False,
    "Go on with other images than the run began with, or another learning rate, warm-up, batch "
    "size, gradient clip, EMA decay, flipping, dropout or number of the optimizer; it is noted.",
)
_ON_CORRUPT_IMAGE = flags.DEFINE_enum(
    "on_corrupt_image", "stop", ["stop", "skip"], "What to do about a file that is no image."
)


@exits_on_user_error
def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --gin_file=FILE")
    if not _GIN_FILE.value:
        raise UserError("--gin_file is missing, for instance --gin_file=gin/digits.gin")

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf.comparison import warn_of_no_effect
    from bdm_tf.exporting import check_finish, finish_run
    from bdm_tf.training.loop import train
    from bdm_tf.training.strategy import make_strategy

    config.parse(_GIN_FILE.value, _GIN_PARAM.value)
    warn_of_no_effect(_GIN_PARAM.value)
    if _INIT_FROM.value:
        config.bind("train.init_from", _INIT_FROM.value)
    workdir = _WORKDIR.value or os.path.join("runs", config.run_name(_GIN_FILE.value))
    check_finish(workdir)  # now, not when it is trained
    stopped_by = config.call(
        train,
        workdir,
        make_strategy(_STRATEGY.value, _TPU.value),
        lambda model, step: finish_run(model, step, workdir),
        data_dir=_DATA_DIR.value,
        on_corrupt_image=_ON_CORRUPT_IMAGE.value,
        allow_changes=_ALLOW_CHANGES.value,
    )
    return 0 if stopped_by is None else 128 + stopped_by


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
