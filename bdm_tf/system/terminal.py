"""What a command has to do with its terminal: flags, and output that may find no reader."""

from __future__ import annotations

import contextlib
import glob
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

from absl import app, flags, logging

from bdm_tf.system.interrupts import end_at_once

# Lines that TensorFlow begins with, and that TF_CPP_MIN_LOG_LEVEL does not turn off.
_CHATTER = (
    "I0000 |WARNING: All log messages before absl::Init|To enable the following instructions"
    "|.*Unable to register cu"
)
# Keras and TensorFlow Lite import these where they find them, which takes seconds and 100 MB, for
# parts that no command uses.
_UNUSED = ("jax", "matplotlib", "sklearn")
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for line in sys.stdin.buffer:
    if not re.match(sys.argv[1].encode(), line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def run_command(main: Callable[[list[str]], None]) -> None:
    """Runs the `main` of one of the library's commands as what this process is for.

    Args:
        main: takes what is left when flags are read; flags of its module are the command's own.
    """
    use_lasting_streams()
    end_at_once()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)  # TensorFlow and TFDS report every file they touch
    for flag in flags.FLAGS.get_key_flags_for_module(main.__module__):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)  # for the help
    app.run(main, flags_parser=partial(_parse_flags, sys.modules[main.__module__].__doc__))


def _parse_flags(help: str | None, argv: list[str]) -> list[str]:
    """absl's parser for `app.run`, but that `-h` and `--help` are no failure."""
    if {"-h", "-help", "--help"} & set(argv[1:]):
        print(f"{sys.modules['__main__'].__doc__ or help}\n{flags.FLAGS.main_module_help()}")
        sys.stdout.flush()  # while a reader that is gone is no error
        sys.exit(0)
    rest = app.parse_flags_with_usage(argv)
    for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]):
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            text = "--%s is given %d times; the last one counts: %s"
            logging.warning(text, flag.name, flag.present, flag.value)
    return rest


def load_tensorflow() -> None:
    """Imports TensorFlow and Keras without the lines that they begin with on every machine."""
    if "tensorflow" not in sys.modules:
        with _without_chatter(), _without_modules(_UNUSED):
            import keras  # noqa: F401
            import tensorflow

            tensorflow.config.list_physical_devices()  # looks for GPUs, and says so


@contextlib.contextmanager
def _without_modules(names: tuple[str, ...]) -> Iterator[None]:
    """Within, modules of these names are not to be had, but where they are there already."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """What is written to stderr within goes through a process of its own, which outlives a crash
    of this one and passes on all else.
    """
    has_nvidia = bool(glob.glob("/dev/nvidia[0-9]*"))
    chatter = _CHATTER if has_nvidia else f"{_CHATTER}|E0000 .*cuInit"
    try:
        stderr = os.dup(2)
        command = [sys.executable, "-ISc", _FILTER, chatter]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    except OSError:  # stderr is closed, or no process can be made
        yield
        return
    assert child.stdin is not None
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)


class LastingStream:
    """A text stream that swallows what is written once nobody reads it, and spells out letters that
    its encoding lacks.

    A pipe whose reader has died (`| tee log`, after Ctrl-C) and a closed terminal make every write
    an error, which must not cost a run its last checkpoint.

    Args:
        stream: the stream, or None where the process was started without one.
    """

    def __init__(self, stream):
        self._stream = stream or open(os.devnull, "w")

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:  # the terminal has no such letters
            code = self._stream.encoding
            return self._stream.write(text.encode(code, "backslashreplace").decode(code))
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def _lose(self) -> None:
        """Sends what is still to come nowhere, TensorFlow's own messages too."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def use_lasting_streams() -> None:
    """Puts a `LastingStream` in the place of `sys.stdout` and `sys.stderr`."""
    if not isinstance(sys.stdout, LastingStream):
        sys.stdout, sys.stderr = LastingStream(sys.stdout), LastingStream(sys.stderr)
