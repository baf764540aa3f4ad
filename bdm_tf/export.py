"""Exports a checkpoint: python -m bdm_tf.export --workdir=DIR --export_dir=DIR

With --gin_file=gin/sampling/fast.gin or --gin_param it is to be sampled otherwise than the run is.
"""

from absl import flags

from bdm_tf.system.errors import UserError, exits_on_user_error
from bdm_tf.system.paths import define_path
from bdm_tf.system.terminal import load_tensorflow, run_command

_WORKDIR = define_path("workdir", None, "The folder of a run.", literal=True)
_EXPORT_DIR = define_path("export_dir", None, "Where the SavedModel goes.", literal=True)
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default the newest.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "How it is sampled: gin/sampling/fast.gin.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], 'For instance "sample.num_steps = 20".')
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what is in --export_dir.")


@exits_on_user_error
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --export_dir=DIR")
    if not _WORKDIR.value or not _EXPORT_DIR.value:
        raise UserError("usage: python -m bdm_tf.export --workdir=DIR --export_dir=DIR [--step=N]")
    for binding in _GIN_PARAM.value:
        if binding.strip().startswith("train."):
            raise UserError(f'--gin_param="{binding}": how it was trained cannot be changed now')

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf import config
    from bdm_tf.comparison import check_same_data, warn_of_no_effect
    from bdm_tf.export_folders import check_free
    from bdm_tf.exporting import export
    from bdm_tf.model import load_model
    from bdm_tf.training import loop  # noqa: F401, for gin

    check_free(_EXPORT_DIR.value, _OVERWRITE.value)

    def choose() -> None:
        before = config.bound_parameters()
        config.overlay(_GIN_FILE.value, _GIN_PARAM.value)
        check_same_data(before)
        warn_of_no_effect(_GIN_PARAM.value)

    model, step = load_model(_WORKDIR.value, _STEP.value, choose)
    export(model, step, _EXPORT_DIR.value, overwrite=_OVERWRITE.value)
    print(f"exported step {step} to {_EXPORT_DIR.value}")


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
