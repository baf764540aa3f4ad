"""Checkpoints: what is kept, and what happens to a broken one."""

import os
import random

import numpy as np
import pytest
import tensorflow as tf

from bdm_tf.system.checkpoint_files import checkpoint_step, find_checkpoint
from bdm_tf.system.errors import TryAgain, UserError
from bdm_tf.training.checkpoints import Checkpoints


def opened(tmp_path, keep=2, keep_every=0, **settings):
    """The checkpoints of one variable, as a process that has just begun has them."""
    variable = tf.Variable([0.0] * 1000)
    checkpoint, folder = tf.train.Checkpoint(v=variable), str(tmp_path / "checkpoints")
    return Checkpoints(checkpoint, folder, keep, keep_every, **settings), variable


def saved(tmp_path, steps, **settings):
    checkpoints, variable = opened(tmp_path, **settings)
    for step in steps:
        variable.assign([float(step)] * 1000)
        checkpoints.save(step)
    checkpoints.wait()
    return checkpoints, variable


def files(tmp_path, folder="checkpoints"):
    return sorted(os.listdir(tmp_path / folder))


def whole(*steps):
    names = (f"ckpt-{step}.{end}" for step in steps for end in ("data-00000-of-00001", "index"))
    return sorted(["checkpoint", *names])


def test_the_last_two_and_every_fourth_are_kept(tmp_path):
    saved(tmp_path, range(1, 11), keep=2, keep_every=4)
    for step in (4, 8, 9, 10):
        assert checkpoint_step(find_checkpoint(str(tmp_path), step)) == step
    with pytest.raises(UserError, match="steps saved: 4, 8, 9, 10"):
        find_checkpoint(str(tmp_path), 7)


@pytest.mark.parametrize("damage", ["truncate", "flip", "lose"])
def test_a_broken_newest_checkpoint_is_passed_over(tmp_path, damage):
    checkpoints, variable = saved(tmp_path, [1, 2])
    path = checkpoints.latest() + ".data-00000-of-00001"
    with open(path, "rb") as file:
        content = bytearray(file.read())
    if damage == "lose":
        os.remove(path)
    else:
        content[len(content) // 2] ^= 0x10
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2] if damage == "truncate" else content)
    variable.assign([-1.0] * 1000)
    assert checkpoint_step(checkpoints.restore()) == 1
    assert (variable.numpy() == 1.0).all()
    assert checkpoint_step(checkpoints.latest()) == 1  # nobody takes the broken one for the newest
    assert tf.train.latest_checkpoint(tmp_path / "checkpoints").endswith("ckpt-1")
    assert "ckpt-2.index" in files(tmp_path, "checkpoints/broken")


def test_nothing_readable_is_an_error_not_a_fresh_start(tmp_path):
    checkpoints, _ = saved(tmp_path, [1])
    with open(checkpoints.latest() + ".index", "wb") as file:
        file.write(b"not an index")
    with pytest.raises(UserError, match="none of the 1 checkpoints"):
        checkpoints.restore()


@pytest.mark.parametrize("variables", ["more", "fewer", "larger", "of another type"])
def test_what_does_not_fit_is_not_called_broken(variables, tmp_path):
    saved(tmp_path, [1, 2])
    values = {
        "more": {"v": tf.Variable([0.0] * 1000), "w": tf.Variable(0.0)},
        "fewer": {},
        "larger": {"v": tf.Variable([0.0] * 1001)},
        "of another type": {"v": tf.Variable([0] * 1000)},
    }[variables]
    folder = str(tmp_path / "checkpoints")
    with pytest.raises(UserError, match=f"ckpt-2 is whole, .*--init_from={tmp_path} and another"):
        Checkpoints(tf.train.Checkpoint(**values), folder, 2, 0).restore()
    assert files(tmp_path) == whole(1, 2)


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.PermissionDeniedError])
def test_what_cannot_be_read_now_is_left_where_it_is(error, tmp_path, monkeypatch):
    checkpoints, _ = saved(tmp_path, [1, 2])

    def restore(*_):
        raise error(None, None, "not now")

    monkeypatch.setattr(tf.train.Checkpoint, "restore", restore)
    with pytest.raises(TryAgain, match="ckpt-2 cannot be read now: not now"):
        checkpoints.restore()
    assert files(tmp_path) == whole(1, 2)


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    checkpoints, variable = saved(tmp_path, [1])
    for end in (".index", ".data-00000-of-00001"):
        path = checkpoints.latest() + end
        with open(path, "rb") as file:
            sound = file.read()
        for place in random.sample(range(len(sound)), 40):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << random.randrange(8)
            with open(path, "wb") as file:
                file.write(damaged)
            variable.assign([-1.0] * 1000)
            try:
                checkpoints.restore()
            except UserError:
                continue
            assert (variable.numpy() == 1.0).all(), (end, place)  # it stands for nothing
        with open(path, "wb") as file:
            file.write(sound)


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    saved(tmp_path, [4, 8], keep_every=4)
    folder = tmp_path / "checkpoints"
    (folder / "ckpt-12_temp").mkdir()
    for name in (
        "ckpt-12_temp/part-00000-of-00001.data-00000-of-00001",
        "ckpt-3.data-00000-of-00001",  # killed while it was deleted
        "ckpt-12.index.tempstate123",
        "checkpoint.tmp0123abcd",
        ".checkpoint.partial",
        "kept/ckpt-12.index.partial",
        "kept/ckpt-16.data-00000-of-00001",
    ):
        (folder / name).write_bytes(b"half")
    opened(tmp_path)
    assert files(tmp_path) == sorted([*whole(4, 8), "kept"])
    assert files(tmp_path, "checkpoints/kept") == whole(4, 8)[1:]


def test_a_newest_checkpoint_without_its_index_is_moved_with_a_warning(tmp_path, caplog):
    saved(tmp_path, [4, 8])
    os.remove(tmp_path / "checkpoints" / "ckpt-8.index")
    checkpoints, _ = opened(tmp_path)
    assert "ckpt-8.data-00000-of-00001 has no .index: it is moved" in caplog.text
    assert files(tmp_path, "checkpoints/broken") == ["ckpt-8.data-00000-of-00001"]
    assert checkpoint_step(checkpoints.latest()) == 4


@pytest.mark.parametrize("note", [None, b"", b'model_checkpoint_path: "ck', b"\xff\x00", b"a: 1"])
def test_a_damaged_note_of_tensorflow_loses_nothing_and_keeps_nothing_too_long(note, tmp_path):
    saved(tmp_path, [1, 2])
    state = tmp_path / "checkpoints" / "checkpoint"
    state.unlink() if note is None else state.write_bytes(note)
    checkpoints, variable = opened(tmp_path)
    assert checkpoint_step(checkpoints.restore()) == 2 and (variable.numpy() == 2.0).all()
    assert tf.train.latest_checkpoint(tmp_path / "checkpoints").endswith("ckpt-2")
    checkpoints.save(3)
    assert files(tmp_path) == whole(2, 3)


def test_a_copy_for_good_that_a_kill_prevented_is_made_at_the_next_start(tmp_path):
    saved(tmp_path, [3, 4], keep_every=4)
    kept = tmp_path / "checkpoints" / "kept"
    (kept / "ckpt-4.index").unlink()
    checkpoints, _ = opened(tmp_path, keep_every=4)
    assert checkpoint_step(checkpoints.restore()) == 4
    assert files(tmp_path, "checkpoints/kept") == whole(4)[1:]


@pytest.mark.parametrize("keep", [1, 3])
def test_in_the_background_too_the_last_are_kept(keep, tmp_path):
    saved(tmp_path, range(1, 6), keep=keep, in_background=True)
    assert files(tmp_path) == whole(*range(6 - keep, 6))
    values = tf.train.load_variable(str(tmp_path / "checkpoints"), "v/.ATTRIBUTES/VARIABLE_VALUE")
    np.testing.assert_array_equal(values, [5.0] * 1000)


def test_a_failure_in_the_background_costs_one_checkpoint_or_is_told_with_its_reason(tmp_path):
    checkpoints, variable = saved(tmp_path, [1], keep=3, in_background=True)
    for step in (2, 4, 5):
        (tmp_path / "checkpoints" / f"ckpt-{step}_temp").write_text("in the way")
    checkpoints.save(2)
    variable.assign([3.0] * 1000)
    checkpoints.save(3)  # the fault has gone
    assert checkpoint_step(checkpoints.latest()) == 3
    with pytest.raises(tf.errors.OpError, match="ckpt-4_temp"):
        checkpoints.save(4)
    again, variable = opened(tmp_path, keep=3)
    assert checkpoint_step(again.restore()) == 3 and (variable.numpy() == 3.0).all()


def test_only_the_chief_writes(tmp_path):
    saved(tmp_path, [1], in_background=True)
    saved(tmp_path, [2], writes=False)
    assert files(tmp_path) == whole(1)


def test_what_a_kill_made_the_manager_forget_does_not_pile_up(tmp_path):
    saved(tmp_path, [1, 2])
    os.remove(tmp_path / "checkpoints" / "checkpoint")  # as if killed before it was written
    saved(tmp_path, [3, 4])
    files = sorted(os.listdir(tmp_path / "checkpoints"))
    assert [f for f in files if f.endswith(".index")] == ["ckpt-3.index", "ckpt-4.index"]
    assert len(files) == 5
