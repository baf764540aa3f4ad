"""SIGTERM, Ctrl-C and what else ends a job as a request to save and stop."""

from __future__ import annotations

import contextlib
import os
import signal

# The terminal is closed; what a scheduler sends some time before it kills; time is up.
_ONCE = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGALRM)
_TWICE = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, a signal sets `signal_number`; after it, SIGTERM and SIGINT kill.

    It hears SIGTERM, SIGINT, SIGHUP (but where it is ignored already, as under nohup), SIGUSR1,
    SIGUSR2, SIGXCPU and SIGALRM.
    """

    signal_number: int | None = None

    def __enter__(self) -> StopRequest:
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in (*_TWICE, *_ONCE)
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, _frame) -> None:
        self.signal_number = number
        with contextlib.suppress(OSError):  # nobody may be left to read it
            os.write(2, b"\nstopping after this call; a second signal kills\n")
        for known in self._previous:  # a closed terminal sends more than one SIGHUP
            signal.signal(known, signal.SIG_DFL if known in _TWICE else signal.SIG_IGN)
