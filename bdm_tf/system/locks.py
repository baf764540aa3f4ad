"""Locks of the kernel, which a process that dies, however it dies, lets go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import IO


def locked(path: str) -> IO[str] | None:
    """A file that this process alone holds until it closes it; it is made if need be.

    Who holds it may remove it.

    Returns:
        The open file, or None where there are no such locks: `gs://`, some network mounts.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    if "://" in path:
        return None
    while True:
        file = open(path, "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:  # a mount without locks
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # who held it has just removed it


def this_process() -> dict[str, str | int]:
    """What tells others who holds a lock."""
    return {"host": socket.gethostname(), "pid": os.getpid()}
