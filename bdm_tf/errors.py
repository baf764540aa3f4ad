"""The one error that a user is meant to read without a stack trace."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable


class UserError(ValueError):
    """A mistake in what the user gave; the message names the value and the way out."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message  # gin adds to `str(error)` through which functions it passed


def exits_on_user_error(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Wraps a command's `main`: a `UserError` is printed as a message, the exit status is 1."""

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            print(f"error: {error.message}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:  # before there is anything to save
            print("interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return wrapped
