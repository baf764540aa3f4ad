"""The one error that a user is meant to read without a stack trace."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from bdm_tf.system.interrupts import end_process
from bdm_tf.system.terminal import use_lasting_streams

# AutoGraph's own error around one that was raised while a graph was built.
_IN_A_GRAPH = re.compile(r"in user code:.*\n\s*UserError: (.*)", re.DOTALL)
_UNKNOWN_SCHEME = re.compile("File system scheme '(.*?)' not implemented")


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
    unknown = _UNKNOWN_SCHEME.search(str(error))
    if unknown:
        return no_file_system(unknown[1])
    text = re.sub(r"^\{\{.*?\}\} ?", "", str(error).strip()) or type(error).__name__
    return re.sub(r" *\[Op:\w+\]( name:.*)?$", "", text.splitlines()[0])[:1000]


def no_file_system(scheme: str) -> str:
    """What to say of a path that begins with `scheme://`, which TensorFlow does not know."""
    return (
        f"TensorFlow has no file system {scheme}:// here (s3:// needs the package tensorflow-io): "
        "give another path"
    )


def _way_out(error: Exception) -> str | None:
    """What to say behind an error that comes from where a command runs; None for any other."""
    text = str(error)
    if _UNKNOWN_SCHEME.search(text):
        return "."
    if "No usable temporary directory" in text:  # TensorFlow wants one to start
        return ": make room there, or set TMPDIR to a folder that can be written to"
    if "Error executing an HTTP request" in text:  # of gs://
        return "; the same command, given again when the network is there, goes on"
    return None


def is_whole(value) -> bool:
    """Whether a value is a whole number, NumPy's included, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_counts(owner: str, lowest: int, highest: int = 2**31 - 1, **values: int) -> None:
    """Raises a `UserError` for a parameter of `owner` that is no whole number in that range."""
    for name, value in values.items():
        if not is_whole(value) or not lowest <= value <= highest:
            too_many = is_whole(value) and value > highest
            most = f", at most {highest}" if too_many else ""
            raise UserError(
                f"{owner}.{name}={value!r} must be a whole number, at least {lowest}{most}"
            )


def check_between(
    name: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    without_low: bool = False,
    without_high: bool = False,
) -> None:
    """Raises a `UserError` for a parameter that is not a finite number from `low` to `high`.

    Args:
        name: the parameter.
        value: what was given.
        low, high: the range, both included.
        without_low, without_high: whether `low`, `high` itself is left out.
    """
    inside = _is_number(value) and low <= value <= high
    if not inside or without_low and value == low or without_high and value == high:
        above = f"above {low}" if without_low else f"at least {low}"
        most = " and finite" if isinstance(value, float) and math.isinf(value) else ""
        if high < math.inf:
            most = f", {'below' if without_high else 'at most'} {high}"
        raise UserError(f"{name}={value!r} must be a number {above}{most}")


def _is_number(value) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def check_order(owner: str, **pair: float) -> None:
    """Raises a `UserError` if the first of two numbers is not below the second."""
    (low_name, low), (high_name, high) = pair.items()
    if low >= high:
        raise UserError(f"{owner}.{low_name}={low} must be below {high_name}={high}")


def check_interval(name: str, value: Sequence[float]) -> None:
    """Raises a `UserError` for what is not two numbers of [0, 1], the first below the second."""
    pair = value if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(_is_number(t) and 0 <= t <= 1 for t in pair) or pair[0] >= pair[1]:
        raise UserError(f"{name}={value!r} must be (low, high), with 0 <= low < high <= 1")


def check_seed(name: str, value: int) -> None:
    """Raises a `UserError` for a seed that is not a whole number from 0 to 2^31 - 1."""
    if not is_whole(value) or not 0 <= value < 2**31:
        raise UserError(f"{name}={value!r} must be a whole number from 0 to {2**31 - 1}")


def check_flags(owner: str, **values: bool) -> None:
    """Raises a `UserError` for a parameter of `owner` that is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise UserError(f"{owner}.{name}={value!r} must be True or False")


def check_text(owner: str, **values: str) -> None:
    """Raises a `UserError` for a parameter of `owner` that is no text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise UserError(f"{owner}.{name}={value!r} must be text, in quotes")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises a `UserError` for a parameter that is none of the choices."""
    if value not in choices:
        raise UserError(f"{name}={value!r} must be {' or '.join(choices)}")


def check_image_shape(name: str, value: Sequence[int]) -> None:
    """Raises a `UserError` for what is not three whole numbers `(H, W, C)`, above 0."""
    shape = value if isinstance(value, (tuple, list)) else ()
    if len(shape) != 3 or not all(is_whole(n) and 0 < n <= 2**16 for n in shape):
        raise UserError(f"{name}={value!r} must be (height, width, channels)")


def check_maker(name: str, value, example: str) -> None:
    """Raises a `UserError` for a parameter that is nothing that can be called to make a part."""
    if not callable(value):
        raise UserError(f"{name} = {value!r} makes nothing: give one like {example}")


def check_kind(name: str, value, kind: type) -> None:
    """Raises a `UserError` for a part that is not an object of `kind`.

    Args:
        name: the parameter, as gin names it.
        value: what was given.
        kind: the class that it must be of.
    """
    if isinstance(value, kind):
        return
    if inspect.isclass(value) and issubclass(value, kind):
        reference = f"@{value.__name__}"
        raise UserError(f"{name} = {reference} lacks its parentheses: {reference}()")
    ours = type(value).__module__.partition(".")[0] == __name__.partition(".")[0]
    shown = f"@{type(value).__name__}()" if ours else repr(value)
    if inspect.isclass(value):
        shown = f"@{value.__name__}"
    raise UserError(
        f"{name} = {shown} is no {kind.__name__}: give one of {', '.join(_made_of(kind))}"
    )


def _made_of(kind: type) -> list[str]:
    """What gin calls the classes of a kind."""
    below: list[type] = kind.__subclasses__()
    found = [name for one in below for name in _made_of(one)]
    usable = not inspect.isabstract(kind) and not kind.__name__.startswith("_")
    if usable:  # in gin, where what needs an argument cannot be given so
        arguments = inspect.signature(kind).parameters.values()
        usable = all(argument.default is not argument.empty for argument in arguments)
    return sorted({*found, *([f"@{kind.__name__}()"] if usable else [])})


def exits_on_user_error(main: Callable[[list[str]], int | None]) -> Callable[[list[str]], None]:
    """Wraps a command's `main`, which returns its exit status; a `UserError` is a message and 1.

    Any other error is a stack trace and 1. TensorFlow takes a GPU's memory as it needs it, so that
    commands can share one, unless TF_FORCE_GPU_ALLOW_GROWTH is set to something else.

    The process ends here and at once: the interpreter's end waits for input pipelines, whose
    threads wait for the interpreter where they read images with Python, for ever.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str]) -> None:
        use_lasting_streams()
        try:
            os.getcwd()
        except FileNotFoundError:
            print("error: the current folder was removed: change to another", file=sys.stderr)
            os._exit(1)
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # read when a GPU is first used
        try:
            status = main(argv) or 0
        except UserError as error:
            print(f"error: {error.message}", file=sys.stderr)
            status = error.status
        except KeyboardInterrupt:  # before there is anything to save
            print("interrupted", file=sys.stderr)
            status = 128 + signal.SIGINT
        except Exception as error:
            if said := _IN_A_GRAPH.search(str(error)):
                print(f"error: {said[1]}", file=sys.stderr)
            elif way_out := _way_out(error):
                print(f"error: {first_line(error)}{way_out}", file=sys.stderr)
            else:
                traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        end_process(status)

    return wrapped
