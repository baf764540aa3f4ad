"""Odd paths, pipes, signals and numbers: no work is lost, and nothing passes in silence."""

import os
import shutil
import signal
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import tensorflow as tf

from bdm_tf import config, exporting  # noqa: F401, exporting for gin
from bdm_tf.export_folders import check_free
from bdm_tf.model import build_model
from bdm_tf.process_figures import draw_to_file
from bdm_tf.system.errors import UserError, check_between
from bdm_tf.system.files import write_atomically
from bdm_tf.system.terminal import LastingStream
from bdm_tf.training import loop  # noqa: F401, for gin
from bdm_tf.training.settings import TrainingSettings
from bdm_tf.training.signals import StopRequest
from tests.conftest import ROOT, TINY, command, run, run_afresh, train_command


def refused(arguments):
    result = run(arguments)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr[-3000:]
    return result.stderr


def test_overwriting_replaces_savedmodels_of_this_library_alone(tmp_path, finished_run):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thoughts.txt").write_text("years of work")
    link = tmp_path / "link"
    link.symlink_to(notes)
    whole = shutil.copytree(os.path.join(finished_run, "saved_model"), tmp_path / "model")
    beside = tmp_path / "new.partial"
    beside.mkdir()
    (beside / "mine.txt").write_text("not a part of a SavedModel")
    arguments = ["export.py", f"--workdir={finished_run}", "--overwrite"]
    for name, words in (
        (notes, "is no SavedModel of this library"),
        (finished_run, "is no SavedModel of this library"),
        (link, "is a link"),
        (tmp_path / "new", "new.partial is no SavedModel"),
    ):
        assert words in refused(command(*arguments, f"--export_dir={name}"))
    assert (notes / "thoughts.txt").read_text() == "years of work"
    assert (beside / "mine.txt").exists() and os.path.exists(os.path.join(finished_run, "logs"))
    assert run(command(*arguments, f"--export_dir={whole}")).returncode == 0
    shutil.rmtree(whole / "variables")  # a damaged one is still one
    check_free(str(whole), overwrite=True)


def test_only_what_names_this_library_is_its_savedmodel(tmp_path, monkeypatch):
    foreign, mine = tmp_path / "foreign", tmp_path / "mine.partial"
    tf.saved_model.save(tf.Module(), str(foreign))
    (mine / "variables").mkdir(parents=True)
    (mine / "variables" / "data.csv").write_text("mine")
    for path in (foreign, tmp_path / "mine"):
        with pytest.raises(UserError, match="is no SavedModel of this library"):
            check_free(str(path), overwrite=True)
    with pytest.raises(UserError, match="--export_dir is empty"):
        check_free("", overwrite=True)
    monkeypatch.chdir(foreign)
    with pytest.raises(UserError, match=r"export_dir=\. is a mount point, or the current folder"):
        check_free(".", overwrite=True)
    with pytest.raises(UserError, match="is a mount point"):
        check_free("/proc", overwrite=True)


def test_numbers_of_hundreds_of_digits_are_numbers():
    with pytest.raises(UserError, match="train.learning_rate=1000.* must be a number"):
        check_between("train.learning_rate", 10**400, 0)


def test_a_users_own_partial_file_stays(tmp_path):
    (tmp_path / "a.json.partial").write_text("mine")
    write_atomically(str(tmp_path / "a.json"), "{}")
    assert (tmp_path / "a.json.partial").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.json.partial"]


def test_a_folder_in_the_place_of_the_last_export_is_found_before_training(tmp_path, digits_dir):
    mine = tmp_path / "run" / "saved_model"
    mine.mkdir(parents=True)
    (mine / "mine.txt").write_text("")
    assert "is no SavedModel" in refused(train_command(tmp_path / "run", digits_dir))
    assert os.listdir(tmp_path / "run") == ["saved_model"]


@pytest.mark.slow
def test_a_pipe_that_breaks_costs_nothing(tmp_path, digits_dir):
    reads, writes = os.pipe()
    os.close(reads)
    process = subprocess.run(
        train_command(tmp_path / "run", digits_dir), stdout=writes, stderr=writes
    )
    assert process.returncode == 0
    assert (tmp_path / "run" / "samples" / "final.png").exists()


def test_a_stream_that_nobody_reads_swallows_what_is_written():
    reads, writes = os.pipe()
    stream = LastingStream(os.fdopen(writes, "w"))
    os.close(reads)
    assert stream.write("lost") == 4
    stream.flush()
    assert stream.write("lost, too") == 9
    stream.flush()
    assert LastingStream(None).write("nowhere") == 7


SIGNALS = "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM"


@pytest.mark.parametrize("name", SIGNALS)
def test_what_ends_a_job_is_heard(name):
    number = getattr(signal, name)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    before = signal.getsignal(number)
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal_number == number
        os.kill(os.getpid(), signal.SIGHUP)  # of a closed terminal there are several
    assert signal.getsignal(number) == before
    signal.signal(signal.SIGHUP, hangup)


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal_number is None
    signal.signal(signal.SIGHUP, before)


def test_fewer_steps_than_are_done_are_refused(tmp_path, digits_dir, finished_run):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    files = ("config.gin", "history.json", "metrics.jsonl", "saved_model/saved_model.pb")
    before = [(workdir / name).read_bytes() for name in files]
    words = refused(train_command(workdir, digits_dir, "train.num_steps = 8"))
    assert "train.num_steps=8, but the run" in words and "is at step 12" in words
    assert [(workdir / name).read_bytes() for name in files] == before


@pytest.mark.parametrize(
    "flag",
    ["--seed=-1", "--seed=2147483648", "--num_images=0", "--num_images=2147483648"]
    + ["--num_steps=-1", "--num_steps=2147483648", "--first=2147483647"],
)
def test_numbers_of_samples_have_one_range(flag, finished_run, tmp_path):
    model = f"--saved_model={finished_run}/saved_model"
    words = refused(command("sample.py", model, f"--output={tmp_path}/a.png", flag))
    assert flag in words or "--first=2147483647" in words
    assert "2147483647" in words or "2147483646" in words


WRONG_SETTINGS = {
    "seed": [-1, 2**31, 1.5, None, True],
    "ema_decay": [1.5, -0.1, None, "0.9", float("nan")],
    "flip": ["no", 1, None],
    "num_steps": [0, 1.5, True, None],
    "warmup_steps": [-1, 1.5],
    "clip_norm": [0, -1.0, "1", float("inf")],
    "learning_rate": [-1.0, None, "x", float("inf")],
    "batch_size": [0, 3, None],
    "data": [None, "digits", int],
}
SETTINGS = {
    **dict.fromkeys("num_steps batch_size steps_per_call keep_checkpoints".split(), 4),
    **dict.fromkeys("warmup_steps log_every checkpoint_every keep_every eval_every".split(), 0),
    **dict.fromkeys("eval_images sample_every sample_images seed".split(), 0),
    **dict.fromkeys("sample_num_steps clip_norm jit_compile".split(), None),
    **dict.fromkeys("flip deterministic async_checkpoints".split(), True),
    "accumulation_steps": 1,
    "ema_decay": 0,
    "learning_rate": 1,
    "data": type("Source", (), {"load": None})(),
}


def test_settings_that_can_be_are_taken():
    TrainingSettings(**SETTINGS).check_shared(2)
    TrainingSettings(**SETTINGS | {"ema_decay": 1, "clip_norm": 1})


@pytest.mark.parametrize("name, value", [(n, v) for n, vs in WRONG_SETTINGS.items() for v in vs])
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"train.{name} ?="):
        TrainingSettings(**SETTINGS | {name: value}).check_shared(2)


WRONG_NETWORKS = [
    "dropout = -0.5",
    "dropout = 1.0",
    "dropout = 'a'",
    "num_res_blocks = -1",
    "num_res_blocks = 1.5",
    "channel_multipliers = ()",
    "channel_multipliers = 2",
    "channel_multipliers = (1, 0)",
    "attention_resolutions = 8",
    "head_dim = 0",
    "channels = 0",
    "remat = 'no'",
    "dtype = 'float16'",
    "dtype = 'bfloat16'",
    "dtype = 'float64'",
    "dtype = 'mixed_float16'",
]


@pytest.mark.parametrize("binding", WRONG_NETWORKS)
def test_networks_out_of_range_are_refused_by_name(binding):
    parameters = [*TINY, "Model.image_shape = (8, 8, 1)", f"UNet.{binding}"]
    config.parse([os.path.join(ROOT, "gin", "digits.gin")], parameters)
    with pytest.raises(UserError, match=f"UNet.{binding.split()[0]}="):
        build_model()


def test_own_photographs_are_not_mirrored():
    config.parse([os.path.join(ROOT, "gin", "folder.gin")], [])
    assert config.parameters(config.operative_text())["train.flip"] == "False"


def test_a_binding_without_an_owner_is_refused(tmp_path, digits_dir):
    extra = ["--gin_param=num_steps = 5"]
    words = refused(train_command(tmp_path / "run", digits_dir, extra=extra))
    assert "names no owner of num_steps" in words and "train.num_steps = 5" in words
    config.parse([], ["steps = 5", "train.num_steps = %steps"])  # a macro that is used


def test_a_savedmodel_takes_what_python_has(finished_run):
    model = tf.saved_model.load(os.path.join(finished_run, "saved_model"))
    images = model.sample(seed=[0, 7], num_images=5)
    same = model.sample(
        seed=np.array([0, 7]), num_images=np.int64(2), num_steps=3, first=tf.constant(3)
    )
    assert images.shape == (5, 8, 8, 1)
    np.testing.assert_array_equal(images[3:], same)


def test_the_librarys_files_include_the_librarys(tmp_path, monkeypatch):
    (tmp_path / "cifar10_small.gin").write_text("train.batch_size = 7\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    config.parse(["folder.gin"], [])
    assert config.parameters(config.operative_text())["train.batch_size"] == "32"
    config.parse(["cifar10_small.gin"], [])  # given by name, it is the user's
    assert config.parameters(config.operative_text()) == {"train.batch_size": "7"}


def test_kerass_settings_for_other_programs_are_not_ours(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"backend": "jax", "image_data_format": "channels_first", "floatx": "float32"}'
    )
    code = (
        "from bdm_tf.networks import UNet; import tensorflow as tf; "
        "n = UNet((8, 8, 1), channels=8, channel_multipliers=(1,), num_res_blocks=1); "
        "print(n(tf.zeros([2, 8, 8, 1]), tf.zeros([2])).shape)"
    )
    environment = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path), "PYTHONPATH": ROOT}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert "(2, 8, 8, 1)" in result.stdout, result.stderr[-2000:]


def test_help_without_a_reader_is_no_failure():
    reads, writes = os.pipe()
    os.close(reads)
    for script in ("sample.py", "evaluate.py", "export.py", "figures.py"):
        result = subprocess.run(command(script, "--help"), stdout=writes, stderr=subprocess.PIPE)
        assert (result.returncode, result.stderr) == (0, b"")
    os.close(writes)


@pytest.mark.parametrize("called, flag", [("launch/train.py", "--help"), ("-m bdm_tf.train", "-h")])
def test_help_is_no_failure_and_lists_every_flag(called, flag):
    path = called.replace("launch", os.path.join(ROOT, "launch"))
    result = run_afresh([sys.executable, *path.split(), flag], timeout=60)
    assert result.returncode == 0, result.stderr
    for word in (f"python {called} --gin_file", "--workdir", "--gin_param", "--strategy"):
        assert word in result.stdout


def test_a_users_matplotlibrc_changes_nothing(tmp_path, finished_run):
    drawn = []
    for own in ({}, {"text.usetex": True, "font.size": 30.0, "savefig.dpi": 7}):
        with matplotlib.rc_context(own), config.apart():
            draw_to_file("snr", str(tmp_path / "a.png"), workdirs=[finished_run])
        drawn.append((tmp_path / "a.png").read_bytes())
    assert drawn[0] == drawn[1]
