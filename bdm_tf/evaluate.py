"""Scores a run: python -m bdm_tf.evaluate --workdir=DIR --gin_file=gin/eval/digits.gin"""

import os

from absl import flags

from bdm_tf.system.errors import UserError, check_seed, exits_on_user_error
from bdm_tf.system.paths import check_ending, default_cache_dir, define_path
from bdm_tf.system.terminal import load_tensorflow, run_command

_WORKDIR = define_path("workdir", None, "The folder of a run.", literal=True)
_SAVED_MODEL = define_path(
    "saved_model", None, "A SavedModel, in place of --workdir.", literal=True
)
_IMAGES = define_path("images", None, "Images in a .npz, in place of --workdir.")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "Gin file, such as gin/eval/cifar10.gin.")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], 'For instance "evaluate.num_steps = 250".')
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; default the newest.")
_WATCH = flags.DEFINE_bool("watch", False, "Score each checkpoint as it lands, until the end.")
_KEEP_BEST = flags.DEFINE_bool("keep_best", False, "With --watch: keep the best checkpoint.")
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", None, "Samples; default 50,000 or gin's; 0 is none."
)
_SEED = flags.DEFINE_integer("seed", None, "Seed of the samples.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time, over all replicas.")
_FEATURES = define_path(
    "features", None, "pixels, inception, classify_image_graph_def.pb, or a SavedModel's folder."
)
_DATA_DIR = define_path("data_dir", None, "TFDS's folder, or a folder of images.")
_ON_CORRUPT_IMAGE = flags.DEFINE_enum(
    "on_corrupt_image", "stop", ["stop", "skip"], "What to do about a file that is no image."
)
_CACHE_DIR = define_path(
    "cache_dir", None, "Where statistics of real images are kept; default ~/.cache/bdm_tf."
)
_TRAIN_STATISTICS = define_path(
    "train_statistics", None, "A .npz with mu and sigma of the training split's features."
)
_EVAL_STATISTICS = define_path(
    "eval_statistics", None, "A .npz with mu and sigma of the evaluation split's features."
)
_EXPORT_STATISTICS = define_path(
    "export_statistics", None, "Folder for train.npz and eval.npz: mu and sigma that were used."
)
_SAVE_SAMPLES = define_path("save_samples", None, "A .npz for the samples.")
_OUTPUT = define_path("output", None, "Default results.json, in the workdir if given.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace the results in --output.")
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker", "tpu"],
    "Where to run; multi_worker reads TF_CONFIG.",
)
_TPU = flags.DEFINE_string("tpu", None, "Name or address of a Cloud TPU.")


def _check_flags(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected arguments {argv[1:]}; flags look like --workdir=DIR")
    subjects = [flag for flag in (_WORKDIR, _SAVED_MODEL, _IMAGES) if flag.value]
    if len(subjects) != 1:
        raise UserError("give one of --workdir=DIR, --saved_model=DIR and --images=FILE.npz|FOLDER")
    if not _GIN_FILE.value:
        raise UserError("--gin_file is missing, for instance --gin_file=gin/eval/digits.gin")
    if _SAVED_MODEL.value:
        for binding in _GIN_PARAM.value:
            if binding.strip().startswith(("sample.", "train.", "Model.", "UNet.")):
                raise UserError(
                    f'--gin_param="{binding}": a SavedModel is scored as it stands; only '
                    "evaluate.num_steps can be set"
                )
    if not _WORKDIR.value:
        for flag in (_STEP, _WATCH, _KEEP_BEST):
            if flag.value:
                raise UserError(f"--{flag.name} goes with --workdir only")
    if _KEEP_BEST.value and not _WATCH.value:
        raise UserError("--keep_best goes with --watch")
    if _WATCH.value:
        for flag in (_STEP, _OUTPUT, _SAVE_SAMPLES):
            if flag.value is not None:
                raise UserError(f"--{flag.name} does not go with --watch")
    for flag, least in ((_NUM_IMAGES, 0), (_BATCH_SIZE, 1)):
        if flag.value is not None and flag.value < least:
            raise UserError(f"--{flag.name}={flag.value} must be at least {least}")
    if _SEED.value is not None:
        check_seed("--seed", _SEED.value)
    check_ending("--save_samples", _SAVE_SAMPLES.value, (".npz",))
    if _IMAGES.value:
        for binding in _GIN_PARAM.value:
            if binding.strip().startswith(("sample.", "train.", "Model.")):
                raise UserError(f'--gin_param="{binding}": --images are scored as they are')
    folder = _EXPORT_STATISTICS.value
    outputs = [os.path.join(folder, f"{split}.npz") for split in ("train", "eval") if folder]
    outputs += [flag.value for flag in (_OUTPUT, _SAVE_SAMPLES) if flag.value]
    if len({os.path.realpath(output) for output in outputs}) < len(outputs):
        raise UserError(f"two outputs are one file, of {', '.join(outputs)}: give other names")
    for output in (_OUTPUT, _SAVE_SAMPLES):
        for given in (_IMAGES, _TRAIN_STATISTICS, _EVAL_STATISTICS, _FEATURES):
            if output.value and given.value and _same(output.value, given.value):
                raise UserError(
                    f"--{output.name}={output.value} is --{given.name}, too: it would be replaced; "
                    "give another name"
                )


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


@exits_on_user_error
def main(argv: list[str]) -> None:
    _check_flags(argv)

    load_tensorflow()  # here, so that a wrong flag is answered before
    from bdm_tf import config, exporting  # noqa: F401, exporting for gin
    from bdm_tf.evaluation.job import make_evaluation
    from bdm_tf.evaluation.once import evaluate_once
    from bdm_tf.evaluation.paths import Paths
    from bdm_tf.evaluation.subjects import TrainedRun, open_subject
    from bdm_tf.evaluation.watch import wait_for_run, watch
    from bdm_tf.training import loop  # noqa: F401, for gin
    from bdm_tf.training.strategy import make_strategy

    numbers = {"num_images": _NUM_IMAGES, "seed": _SEED, "batch_size": _BATCH_SIZE}
    given = [f"evaluate.{k} = {f.value}" for k, f in numbers.items() if f.value is not None]
    if _WATCH.value:
        wait_for_run(_WORKDIR.value)
    strategy = make_strategy(_STRATEGY.value, _TPU.value)
    subject = open_subject(
        strategy,
        lambda: config.overlay(_GIN_FILE.value, [*_GIN_PARAM.value, *given]),
        workdir=_WORKDIR.value,
        saved_model=_SAVED_MODEL.value,
        images=_IMAGES.value,
    )
    statistics = {"train": _TRAIN_STATISTICS.value, "eval": _EVAL_STATISTICS.value}
    paths = Paths(
        cache_dir=_CACHE_DIR.value or default_cache_dir("--cache_dir"),
        data_dir=_DATA_DIR.value,
        on_corrupt_image=_ON_CORRUPT_IMAGE.value,
        features=_FEATURES.value,
        statistics={split: path for split, path in statistics.items() if path},
        export_statistics=_EXPORT_STATISTICS.value,
        save_samples=_SAVE_SAMPLES.value,
    )
    evaluation = make_evaluation(subject, strategy, paths)
    if isinstance(subject, TrainedRun):
        if _WATCH.value:
            watch(evaluation, subject, _WORKDIR.value, keep_best=_KEEP_BEST.value)
            return
        subject.restore_step(_STEP.value)
    output = _OUTPUT.value or os.path.join(_WORKDIR.value or "", "results.json")
    evaluate_once(evaluation, output, overwrite=_OVERWRITE.value)


def run() -> None:
    """The command."""
    run_command(main)


if __name__ == "__main__":
    run()
