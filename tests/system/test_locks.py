"""Locks on files."""

import fcntl
import os

import pytest

from bdm_tf.system.locks import locked


def test_one_holds_a_lock_until_it_closes_it(tmp_path):
    path = str(tmp_path / "lock")
    first = locked(path)
    with pytest.raises(BlockingIOError):
        locked(path)
    first.close()
    locked(path).close()


def test_a_file_that_its_holder_removes_meanwhile_is_not_taken_for_a_lock(tmp_path, monkeypatch):
    path, flock, removed = tmp_path / "lock", fcntl.flock, []

    def flock_after_removal(file, how):
        if not removed:
            removed.append(path.unlink())
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock_after_removal)
    held = locked(str(path))
    assert removed and os.path.samestat(os.fstat(held.fileno()), path.stat())
    held.close()


def test_where_there_are_no_locks_there_is_none():
    assert locked("ram://lock") is None
