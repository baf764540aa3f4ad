"""A workdir's files and its lock, when something has befallen them."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from bdm_tf.history import TrainingImages
from bdm_tf.system.errors import TryAgain, UserError
from bdm_tf.training.checkpoints import Checkpoints
from bdm_tf.training.workdir import Workdir


@pytest.mark.parametrize("end", [b'{"step": 3, "lo', b"\xff\x00", b"\x00" * 5, b"4", b"[]"])
def test_a_line_of_metrics_that_was_cut_is_forgotten(end, tmp_path):
    files = Workdir(str(tmp_path))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n' + end)
    files.forget_after(2)
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    files.close()


@pytest.mark.parametrize(
    "name, content",
    [
        ("metrics.jsonl", b"my notes"),
        ("metrics.jsonl", b'{"step": 1}\nmy notes\n{"step": 2}\n'),
        ("metrics.jsonl", b"[1]\n"),
        ("trainer.json", b'{"host": "mine"}'),
        ("trainer.json", b"\xff\xfe"),
    ],
)
def test_a_file_of_something_else_is_not_written_over(name, content, tmp_path):
    run = tmp_path / "run"
    Workdir(str(run)).claim("a.b = 1\n")
    there = sorted(os.listdir(run))
    mine = tmp_path / "mine.txt"
    mine.write_bytes(content)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine)
    with pytest.raises(UserError, match=f"{name} .*: move it away"):
        Workdir(str(run))
    assert mine.read_bytes() == content
    assert sorted(os.listdir(run)) == sorted({*there, name})


@pytest.mark.parametrize("content", [b"", b'{"st', b'{"step": 1, "lo', b"\0" * 5])
def test_metrics_whose_first_line_was_cut_are_forgotten(content, tmp_path):
    (tmp_path / "config.gin").write_text("a.b = 1\n")
    (tmp_path / "metrics.jsonl").write_bytes(content)
    files = Workdir(str(tmp_path))
    files.forget_after(0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    files.close()


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    for number, (start, end) in enumerate([(0, 6), (4, 7), (2, 3), (2, 5)]):
        files = Workdir(str(tmp_path))
        files.claim("a.b = 1\n")
        files.forget_after(start)
        for step in range(start + 1, end + 1):
            files.write_metrics(step, {"loss": end + step / 10})
        files.write_samples(end, np.zeros([1, 8, 8, 1], np.uint8))
        files.close()
        for log in (tmp_path / "logs").glob("*.v2"):  # in order, also within a second
            log.rename(log.with_name(f"events.out.tfevents.{number}"))
    shown = EventAccumulator(str(tmp_path / "logs"), size_guidance={"tensors": 0}).Reload()
    losses = [(event.step, tf.make_ndarray(event.tensor_proto)) for event in shown.Tensors("loss")]
    rows = [json.loads(line) for line in lines(tmp_path)]
    np.testing.assert_allclose(losses, [(row["step"], row["loss"]) for row in rows], rtol=1e-6)
    assert [event.step for event in shown.Tensors("samples")] == [5]


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"\xff\xfe"])
def test_a_damaged_configuration_is_named_and_can_be_written_anew(content, tmp_path):
    files = Workdir(str(tmp_path))
    files.claim("a.b = 1\n")
    (tmp_path / "config.gin").write_bytes(content)
    with pytest.raises(UserError, match="config.gin is damaged; move it away"):
        files.claim("a.b = 1\n")
    (tmp_path / "config.gin").unlink()
    files.claim("a.b = 1\n")
    files.close()


def write(files, content):
    with files.writing():
        files.write_metrics(1, {"content": content})


def lines(path):
    with tf.io.gfile.GFile(os.path.join(path, "metrics.jsonl")) as file:
        return file.read().splitlines()


def test_where_there_are_no_locks_the_newer_trainer_takes_over(tmp_path):
    path = f"ram://{tmp_path.name}"
    older, newer = Workdir(path), Workdir(path)
    newer.claim("a.b = 1\n")
    write(newer, 1.0)
    with pytest.raises(UserError, match="was taken over by another trainer, .*pid"):
        write(older, 2.0)
    older.close()  # does not let go of what is another's
    write(newer, 3.0)
    assert [line.split()[-1] for line in lines(path)] == ["1.0}", "3.0}"]
    newer.close()
    write(Workdir(path), 4.0)


def test_a_folder_that_does_not_answer_is_not_called_removed(tmp_path, monkeypatch):
    files = Workdir(str(tmp_path))

    def no_answer(*_):
        raise tf.errors.UnavailableError(None, None, "no answer")

    monkeypatch.setattr(tf.io.gfile.GFile, "read", no_answer)
    with pytest.raises(TryAgain, match="cannot be read: no answer"):
        write(files, 1.0)


def test_the_reason_of_a_lost_worker_is_seen_once_it_is_written(tmp_path):
    chief, other = Workdir(str(tmp_path)), Workdir(str(tmp_path), writes=False)
    later = threading.Timer(0.5, other.leave_reason, ["worker 1: a damaged image"])
    later.start()
    assert chief.reason_left() == "worker 1: a damaged image"
    chief.close()
    Workdir(str(tmp_path)).close()  # the next start forgets it
    assert other.reason_left(seconds=0.0) is None


def test_one_process_at_a_time_holds_a_folder(tmp_path):
    first = Workdir(str(tmp_path))
    with pytest.raises(UserError, match=f"in use by another trainer.*{os.getpid()}"):
        Workdir(str(tmp_path))
    (tmp_path / "trainer.json").unlink()
    with pytest.raises(UserError, match="which is just starting"):
        Workdir(str(tmp_path))
    Workdir(str(tmp_path), writes=False)  # another worker of the same job
    first.close()
    Workdir(str(tmp_path)).close()


def test_a_folder_that_was_removed_and_begun_by_another_belongs_to_the_other(tmp_path):
    path = str(tmp_path / "run")
    first = Workdir(path)
    shutil.rmtree(path)
    with pytest.raises(UserError, match="was removed"):
        write(first, 1.0)
    assert not os.path.exists(path)
    second = Workdir(path)
    with pytest.raises(UserError, match="taken over"):
        write(first, 1.0)
    write(second, 2.0)
    assert len(lines(path)) == 1


def test_a_folder_with_what_a_run_would_overwrite_is_refused(tmp_path):
    (tmp_path / "samples").mkdir()
    Workdir(str(tmp_path)).close()  # empty ones are no harm
    for name in ("metrics.jsonl", "samples/final.png", "spectrum.npz", "logs/notes.txt"):
        mine = tmp_path / name.replace("/", "-") / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        with pytest.raises(UserError, match=f"holds {name.split('/')[0]}, but no run"):
            Workdir(str(tmp_path / name.replace("/", "-")))
        assert mine.read_text() == "mine"
        assert not list((tmp_path / name.replace("/", "-")).glob(".*"))


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_is_refused_leaves_nothing_behind(tmp_path, there):
    path = tmp_path / "run"
    if there:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    files = Workdir(str(path))
    with pytest.raises(UserError), files.beginning():
        raise UserError("UNet.channels=0 must be at least 1")
    if there:
        assert os.listdir(path) == ["notes.txt"]
    else:
        assert not path.exists()


def test_a_configuration_that_is_a_folder_is_damaged(tmp_path):
    files = Workdir(str(tmp_path))
    (tmp_path / "config.gin").mkdir()
    with pytest.raises(UserError, match="config.gin is damaged"):
        files.claim("a.b = 1\n")
    files.close()


@pytest.mark.parametrize("name", ["samples", "logs", "checkpoints", "saved_model"])
def test_a_file_where_a_folder_is_written_is_told_at_once(tmp_path, name):
    (tmp_path / "config.gin").write_text("a.b = 1\n")
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"{name} is a file, where the run writes a folder: move"):
        Workdir(str(tmp_path))
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples/final.png", "trust.npz"])
def test_a_folder_where_a_file_is_written_is_told_at_once(tmp_path, name):
    (tmp_path / "config.gin").write_text("a.b = 1\n")
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"{name} is a folder, where the run writes a file: move"):
        Workdir(str(tmp_path))


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew_over_what_is_left(tmp_path, finished):
    (tmp_path / "config.gin").write_text("a.b = 1\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 100}\n{"step": 200}\n')
    if finished:
        (tmp_path / "saved_model").mkdir()
        (tmp_path / "saved_model" / "saved_model.pb").write_text("")
    else:
        folder = tmp_path / "checkpoints"
        checkpoints = Checkpoints(tf.train.Checkpoint(x=tf.Variable(1.0)), str(folder), 3, 0)
        checkpoints.save(200)
        shutil.rmtree(folder)
        for hidden in tmp_path.glob(".*"):  # as if copied by `cp -r run/* .`
            hidden.unlink()
    with pytest.raises(UserError, match="was at step 200, but none of its checkpoints"):
        Workdir(str(tmp_path))
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 100}\n{"step": 200}\n'


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    (tmp_path / "config.gin").write_text("a.b = 1\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 100}\n')
    Workdir(str(tmp_path)).close()


@pytest.mark.parametrize("step", [0, 3])
def test_a_run_that_lost_its_configuration_says_so_once(step, tmp_path, caplog):
    files = Workdir(str(tmp_path))
    files.claim("a.b = 1\n", step=step)
    files.claim("a.b = 1\n", step=step)
    files.close()
    assert caplog.text.count("config.gin was missing and was written anew") == (step > 0)


def test_a_run_that_lost_its_history_says_that_nothing_could_check_its_images(tmp_path, caplog):
    images = TrainingImages(20, "abc")
    files = Workdir(str(tmp_path))
    files.claim("a.b = 1\n", images, step=0)
    files.claim("a.b = 1\n", images, step=3)
    assert "history.json" not in caplog.text
    (tmp_path / "history.json").unlink()
    files.claim("a.b = 1\n", TrainingImages(15, "def"), step=3)
    files.close()
    assert "history.json was missing and was written anew: it is unknown" in caplog.text


def test_comments_in_config_gin_are_kept_while_it_says_the_same(tmp_path):
    path = tmp_path / "config.gin"
    path.write_text("# my notes\nb.c = 2\na.b = 1\n")
    workdir = Workdir(str(tmp_path))
    workdir.claim("# Parameters:\na.b = 1\nb.c = 2\n")
    workdir.close()
    assert path.read_text() == "# my notes\nb.c = 2\na.b = 1\n"


@pytest.mark.parametrize("left", [None, "", '{"step": 9}\n', '{"step": 3}\n'])
def test_measurements_that_are_gone_are_missed(left, tmp_path, caplog):
    (tmp_path / "config.gin").write_text("a.b = 1\n")
    if left is not None:
        (tmp_path / "metrics.jsonl").write_text(left)
    workdir = Workdir(str(tmp_path))
    workdir.forget_after(8, is_measured=False)
    assert caplog.records == []
    workdir.forget_after(8, is_measured=True)
    workdir.close()
    is_said = "metrics.jsonl has nothing of the steps up to 8" in caplog.text
    assert is_said == (left != '{"step": 3}\n')


def test_a_lost_configuration_is_checked_by_the_history(tmp_path):
    workdir = Workdir(str(tmp_path))
    workdir.claim("Model.x = 1\nsample.y = 1\n")
    (tmp_path / "config.gin").unlink()
    with pytest.raises(UserError, match="Model.x: 1 there, 2 here"):
        workdir.claim("Model.x = 2\n", step=3)
    workdir.claim("Model.x = 1\nsample.y = 2\n", step=3)
    workdir.close()


def test_a_backup_of_links_stays_as_it_is(tmp_path):
    files = Workdir(str(tmp_path / "run"))
    files.write_metrics(1, {"loss": 1.0})
    os.link(tmp_path / "run" / "metrics.jsonl", tmp_path / "backup.jsonl")
    before = (tmp_path / "backup.jsonl").read_bytes()
    files.forget_after(1)
    files.write_metrics(2, {"loss": 0.5})
    assert (tmp_path / "backup.jsonl").read_bytes() == before
    assert len((tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()) == 2
