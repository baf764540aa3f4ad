"""The one error that a user is meant to read without a stack trace."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable


class UserError(ValueError):
    """A mistake in what the user gave; the message names the value and the way out."""

    status = 1  # of the process that it ends

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message  # gin adds to `str(error)` through which functions it passed


class TryAgain(UserError):
    """Nobody's mistake: the same command, given again, goes on. EX_TEMPFAIL of sysexits.h."""

    status = 75


def first_line(error: Exception) -> str:
    """The line of an error that says what happened, without TensorFlow's name of the node."""
    text = re.sub(r"^\{\{.*?\}\} ?", "", str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:300]


def check_counts(owner: str, lowest: int, **values: int) -> None:
    """Raises a `UserError` for a parameter of `owner` that is not a whole number >= `lowest`."""
    for name, value in values.items():
        if not isinstance(value, int) or value < lowest:
            raise UserError(f"{owner}.{name}={value!r} must be a whole number, at least {lowest}")


def check_numbers(owner: str, **values: float) -> None:
    """Raises a `UserError` for a parameter of `owner` that is not a number, at least 0."""
    for name, value in values.items():
        if not isinstance(value, (int, float)) or not value >= 0:
            raise UserError(f"{owner}.{name}={value!r} must be a number, at least 0")


def exits_on_user_error(main: Callable[[list[str]], int | None]) -> Callable[[list[str]], None]:
    """Wraps a command's `main`, which returns its exit status; a `UserError` is a message and 1.

    Any other error is a stack trace and 1.

    The process ends here and at once: the interpreter's end waits for input pipelines, whose
    threads wait for the interpreter where they read images with Python, for ever.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        try:
            status = main(argv) or 0
        except UserError as error:
            print(f"error: {error.message}", file=sys.stderr)
            status = error.status
        except KeyboardInterrupt:  # before there is anything to save
            print("interrupted", file=sys.stderr)
            status = 128 + signal.SIGINT
        except Exception:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    return wrapped
