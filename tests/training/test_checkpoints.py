"""Checkpoints: what is kept, and what happens to a broken one."""

import os

import pytest
import tensorflow as tf

from bdm_tf.errors import UserError
from bdm_tf.training.checkpoints import Checkpoints, checkpoint_step, find_checkpoint


def saved(tmp_path, steps, keep=2, keep_every=0):
    variable = tf.Variable([0.0] * 1000)
    checkpoints = Checkpoints(
        tf.train.Checkpoint(v=variable), str(tmp_path / "checkpoints"), keep, keep_every
    )
    for step in steps:
        variable.assign([float(step)] * 1000)
        checkpoints.save(step)
    return checkpoints, variable


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


def test_nothing_readable_is_an_error_not_a_fresh_start(tmp_path):
    checkpoints, _ = saved(tmp_path, [1])
    with open(checkpoints.latest() + ".index", "wb") as file:
        file.write(b"not an index")
    with pytest.raises(UserError, match="none of the 1 checkpoints"):
        checkpoints.restore()


def test_what_a_kill_made_the_manager_forget_does_not_pile_up(tmp_path):
    saved(tmp_path, [1, 2])
    os.remove(tmp_path / "checkpoints" / "checkpoint")  # as if killed before it was written
    saved(tmp_path, [3, 4])
    files = sorted(os.listdir(tmp_path / "checkpoints"))
    assert [f for f in files if f.endswith(".index")] == ["ckpt-3.index", "ckpt-4.index"]
    assert len(files) == 5
