"""One trainer a workdir."""

from __future__ import annotations

import contextlib
import json
import os

import tensorflow as tf

from bdm_tf.system.errors import TryAgain, UserError, first_line
from bdm_tf.system.files import write_atomically
from bdm_tf.system.locks import locked, this_process


class WorkdirLock:
    """Holds a workdir for this process.

    On a file system of this machine the lock is the kernel's: a second trainer is refused, and a
    trainer that dies, however it dies, lets go. Elsewhere (`gs://`, network mounts without locks)
    nobody can tell a dead trainer from a slow one, so the newer one takes over and the older one
    stops at its next write: `check`.

    Args:
        workdir: the folder.

    Raises:
        UserError: another process trains there.
        OSError, OpError: the folder cannot be written to.
    """

    def __init__(self, workdir: str):
        self._workdir = workdir
        self._owner = os.path.join(workdir, "trainer.json")
        self._me = json.dumps({**this_process(), "mark": os.urandom(8).hex()})
        try:
            self._file = locked(os.path.join(workdir, ".lock"))
        except BlockingIOError:
            owner = self._read() or "which is just starting"
            raise UserError(
                f"--workdir={workdir} is in use by another trainer, {owner}; wait for its end, "
                "stop it, or give another --workdir"
            ) from None
        write_atomically(self._owner, self._me)

    def check(self) -> None:
        """Before a write.

        Raises:
            UserError: another process has taken the workdir over, or it is gone.
            TryAgain: it cannot be read now.
        """
        try:
            owner = self._read()
        except (tf.errors.OpError, OSError) as error:
            raise TryAgain(
                f"--workdir={self._workdir} cannot be read: {first_line(error)}; "
                "the same command goes on from what was saved"
            ) from error
        if owner is None:
            left = tf.io.gfile.exists(self._workdir)
            first = "; what lies there now was saved since: put it with the rest" if left else ""
            raise UserError(
                f"--workdir={self._workdir} was removed{first}; bring it back and give the same "
                "command, or train into another"
            )
        if owner != self._me:
            raise UserError(
                f"--workdir={self._workdir} was taken over by another trainer, {owner}; this one "
                "stops and has written nothing since"
            )

    def release(self) -> None:
        """Lets another process train here."""
        with contextlib.suppress(tf.errors.OpError, OSError):
            if self._read() == self._me:
                tf.io.gfile.remove(self._owner)
        if self._file is not None:
            self._file.close()

    def _read(self) -> str | None:
        """Who holds the workdir, None if nobody does."""
        try:
            with tf.io.gfile.GFile(self._owner) as file:
                return file.read()
        except (tf.errors.NotFoundError, FileNotFoundError):
            return None
