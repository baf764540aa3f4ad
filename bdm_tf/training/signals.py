"""SIGTERM and Ctrl-C as a request to save and stop."""

from __future__ import annotations

import os
import signal


class StopRequest:
    """While entered, the first SIGTERM or SIGINT sets `signal_number`; a second one kills."""

    signal_number: int | None = None

    def __enter__(self) -> StopRequest:
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, _frame) -> None:
        self.signal_number = number
        os.write(2, b"\nstopping after this call; a second signal kills\n")
        for either in self._previous:
            signal.signal(either, signal.SIG_DFL)
