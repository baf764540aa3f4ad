"""Ctrl-C and SIGTERM while a command has nothing to save: it ends, wherever it is."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, TypeVar

Result = TypeVar("Result")


def end_at_once() -> None:
    """From now on Ctrl-C and SIGTERM end this process, with status 130 and 143.

    Python's own `KeyboardInterrupt` may come up in an import or between two halves of a lock, where
    it is lost or leaves the lock held for ever. A signal that is ignored stays so.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


@contextlib.contextmanager
def cleaning_up() -> Iterator[None]:
    """Around what removes its own half-written files: there Ctrl-C is a `KeyboardInterrupt`."""
    ours = signal.getsignal(signal.SIGINT) is _end
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def interruptible(work: Callable[..., Result], **arguments) -> Result:
    """Calls what takes long in another thread: Python hears signals between its own steps alone."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, **arguments).result()


def _end(number, _frame) -> None:
    with contextlib.suppress(OSError):  # nobody may be left to read it
        os.write(2, b"\ninterrupted\n")
    end_process(128 + number)


def end_process(status: int) -> NoReturn:
    """Ends this process at once, without what the interpreter does at its end.

    What AutoGraph wrote to the temporary folder goes with it.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file") and module.__file__:
            compiled = importlib.util.cache_from_source(module.__file__)
            for path in (module.__file__, compiled):
                with contextlib.suppress(OSError):
                    os.remove(path)
            with contextlib.suppress(OSError):  # others' are in it, or it never was
                os.rmdir(os.path.dirname(compiled))
    os._exit(status)
