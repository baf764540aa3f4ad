"""Shows what processes do: python -m bdm_tf.figures --gin_file=gin/digits.gin --output=f.png"""

from absl import flags

from bdm_tf.system.errors import UserError, check_seed, exits_on_user_error
from bdm_tf.system.paths import check_ending, define_path, define_paths
from bdm_tf.system.terminal import load_tensorflow, run_command

_FIGURE = flags.DEFINE_enum(
    "figure",
    "process",
    ["process", "spaces", "snr"],
    "Images as they fade; with their coefficients below; or log SNR of the frequencies.",
)
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], 'A model; files joined by "+" are laid over each other. May be repeated.'
)
_WORKDIR = define_paths("workdir", "The folder of a run; may be repeated.")
_SAVED_MODEL = define_paths("saved_model", "A model that was exported; may be repeated.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "Laid over every model.")
_DATA_DIR = define_path("data_dir", None, "TFDS's folder, or a folder of images.")
_NUM_TIMES = flags.DEFINE_integer("num_times", 8, "Columns, evenly from t = 0 to t = 1.")
_IMAGE = flags.DEFINE_integer("image", 0, "Number of the image in the training split.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", 1, "Images from there on, a row each.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the noise, which all rows and times share.")
_OUTPUT = define_path("output", None, "A .png, .pdf or .svg.")
_MOST_TIMES = 100  # columns of one figure
_MOST_PICTURES = 400  # of each model: a GiB of memory


def _check_flags(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --gin_file=FILE")
    if not any([*_GIN_FILE.value, *_WORKDIR.value, *_SAVED_MODEL.value]):
        raise UserError("give at least one --gin_file=FILE, --workdir=DIR or --saved_model=DIR")
    for files in _GIN_FILE.value:
        if not all(files.split("+")):
            raise UserError(
                f"--gin_file={files} has no file before or after a +: give FILE, or FILE+FILE"
            )
    if not _OUTPUT.value:
        raise UserError("--output is missing, for instance --output=figure.png")
    check_ending("--output", _OUTPUT.value, (".png", ".pdf", ".svg"))
    for flag, least in ((_NUM_TIMES, 2), (_IMAGE, 0), (_NUM_IMAGES, 1)):
        if flag.value < least:
            raise UserError(f"--{flag.name}={flag.value} must be at least {least}")
    check_seed("--seed", _SEED.value)
    if _NUM_TIMES.value > _MOST_TIMES:
        raise UserError(f"--num_times={_NUM_TIMES.value} must be at most {_MOST_TIMES}")
    most = _MOST_PICTURES // _NUM_TIMES.value
    if _NUM_IMAGES.value > most:
        raise UserError(
            f"--num_images={_NUM_IMAGES.value} must be at most {most}, which is {_MOST_PICTURES} "
            f"pictures in --num_times={_NUM_TIMES.value} columns"
        )


@exits_on_user_error
def main(argv: list[str]) -> None:
    _check_flags(argv)

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf import exporting  # noqa: F401, for gin
    from bdm_tf.process_figures import draw_to_file
    from bdm_tf.training import loop  # noqa: F401, for gin

    draw_to_file(
        _FIGURE.value,
        _OUTPUT.value,
        gin_files=[files.split("+") for files in _GIN_FILE.value],
        workdirs=_WORKDIR.value,
        saved_models=_SAVED_MODEL.value,
        gin_params=_GIN_PARAM.value,
        data_dir=_DATA_DIR.value,
        num_times=_NUM_TIMES.value,
        image=_IMAGE.value,
        num_images=_NUM_IMAGES.value,
        seed=_SEED.value,
    )


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
