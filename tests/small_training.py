"""Trains a network that is nearly nothing and saves it after every step.

Arguments: data_dir, workdir, the bytes that a file may have at most ("" for any),
and parameters for gin.
"""

import resource
import signal
import sys

import small_network  # noqa: F401, Convolutions, for gin

from bdm_tf import config
from bdm_tf.exporting import finish_run
from bdm_tf.system.errors import exits_on_user_error
from bdm_tf.training.loop import train
from bdm_tf.training.strategy import make_strategy

SETTINGS = [
    "Model.network = @Convolutions",
    "train.batch_size = 8",
    "train.log_every = 1",
    "train.checkpoint_every = 1",
    "train.eval_every = 0",
    "train.sample_every = 0",
    "sample.num_steps = 2",
]


@exits_on_user_error
def main(argv):
    data_dir, workdir, limit, *parameters = argv[1:]
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    config.parse(["digits.gin"], [*SETTINGS, *parameters])
    stopped_by = config.call(
        train,
        workdir,
        make_strategy("one_device"),
        lambda model, step: finish_run(model, step, workdir),
        data_dir=data_dir,
    )
    return 0 if stopped_by is None else 128 + stopped_by


if __name__ == "__main__":
    main(sys.argv)
