"""Compiles for a TPU where there is none: python -m bdm_tf.tpu_check --gin_file=gin/digits.gin

The status is 0 if the step compiles and fits into the chip's memory, else 1.
"""

from absl import flags

from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.paths import define_path
from bdm_tf.system.terminal import load_tensorflow, run_command
from bdm_tf.tpu_check.topology import parse_topology, prepare_environment

_GIN_FILE = flags.DEFINE_multi_string("gin_file", None, "Gin file; may be given several times.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], 'For instance "UNet.remat = True".')
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "The slice: v5e:2x4, v4:2x2x1, v6e:2x2.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Over all chips; default train.batch_size.")
_WHAT = flags.DEFINE_enum("what", "train", ["train", "sample"], "The training step or a sampler.")
_IMAGE_SHAPE = flags.DEFINE_list("image_shape", None, "H,W,C; default that of the data set.")
_OUTPUT = define_path("output", None, "A .json for the report.")


def _image_shape() -> tuple[int, ...] | None:
    if _IMAGE_SHAPE.value is None:
        return None
    if len(_IMAGE_SHAPE.value) != 3 or not all(
        n.isdecimal() and int(n) for n in _IMAGE_SHAPE.value
    ):
        given = ",".join(_IMAGE_SHAPE.value)
        raise UserError(
            f"--image_shape={given} must be three numbers above 0, for instance 32,32,3"
        )
    return tuple(map(int, _IMAGE_SHAPE.value))


@exits_on_user_error
def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --gin_file=FILE")
    if not _GIN_FILE.value:
        raise UserError("--gin_file is missing, for instance --gin_file=gin/cifar10.gin")
    if _BATCH_SIZE.value is not None and _BATCH_SIZE.value < 1:
        raise UserError(f"--batch_size={_BATCH_SIZE.value} must be at least 1")
    topology, image_shape = parse_topology(_TOPOLOGY.value), _image_shape()
    prepare_environment()

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf import config, exporting  # noqa: F401, exporting for gin
    from bdm_tf.tpu_check.job import check

    config.parse(_GIN_FILE.value, _GIN_PARAM.value)
    runs = check(
        _WHAT.value,
        topology,
        batch_size=_BATCH_SIZE.value,
        image_shape=image_shape,
        output=_OUTPUT.value,
    )
    return 0 if runs else 1


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
