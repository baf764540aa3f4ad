"""Gin text: read it, write it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import tokenize
from collections.abc import Callable, Iterator, Sequence

import gin

from bdm_tf.gin_messages import about_a_lack, hint_at, reason_of
from bdm_tf.macros import check_macros, warn_of_no_owner
from bdm_tf.system.errors import UserError, first_line
from bdm_tf.system.paths import expanded

# gin/ is in this package where that was installed, beside it in a checkout.
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_HOME = _PACKAGE if os.path.isdir(os.path.join(_PACKAGE, "gin")) else os.path.dirname(_PACKAGE)

# What gin raises for a text that it cannot use.
_REFUSALS = (
    *(ValueError, RuntimeError, SyntaxError, TypeError, LookupError, AttributeError),
    tokenize.TokenError,
)
_ONE_AT_A_TIME = threading.RLock()  # gin has one configuration for all threads
_UNSET = re.compile(r"No bindings specified for '([\w./]+)/gin.macro'")
_MADE = re.compile(r"@([\w./]+)\(\)")

# What to add to gin's message; each is given the message. Those who register with gin add theirs.
hints: list[Callable[[str], str]] = []
# Beginnings of names that gin must not shorten in a text: what is short enough depends on what else
# is registered, and that on what is installed.
named_in_full: tuple[str, ...] = ()


def parse(files: Sequence[str], parameters: Sequence[str]) -> None:
    """Reads gin files, then single parameters, into gin's global configuration.

    Args:
        files: paths of gin files, or names of the library's, such as `"gin/digits.gin"`; the later
            ones override the earlier ones.
        parameters: bindings such as `"train.batch_size = 64"`; they override the files.

    Raises:
        UserError: a file is missing, or a name, parameter or value is unknown or malformed.
    """
    gin.clear_config()
    overlay(files, parameters)


def overlay(files: Sequence[str], parameters: Sequence[str]) -> None:
    """`parse` on top of the configuration that is there."""
    if not all(parameter.strip() for parameter in parameters):
        raise UserError('--gin_param is empty: give "NAME = VALUE", or leave the flag out')
    known = bound_parameters()
    files = [expanded("--gin_file", file) for file in files]
    places = (_HOME, os.path.join(_HOME, "gin"))
    if not all(files):
        raise UserError("--gin_file is empty: give a .gin file, or leave the flag out")
    for file in files:
        if any(os.path.isdir(os.path.join(place, file)) for place in ("", *places)):
            raise UserError(f"--gin_file={file} is a folder; give a .gin file")
        if os.path.exists(file) and not os.path.isfile(file):
            raise UserError(f"--gin_file={file} is a pipe or a device; give a .gin file")
        _check_encoding(file)
    for path in places:
        gin.add_config_file_search_path(path)
    files = [os.path.abspath(file) if os.path.exists(file) else file for file in files]
    parameters = list(parameters)
    for file in files:
        gin.add_config_file_search_path(os.path.dirname(os.path.abspath(file)))
    # What the library's files include is the library's, not its namesake in the current folder.
    prefixes = gin.config._LOCATION_PREFIXES
    prefixes.sort(key=lambda prefix: prefix == "")
    try:
        with _without_logging(), gin.unlock_config():
            gin.parse_config_files_and_bindings(files, parameters)
    except RecursionError as error:
        raise UserError(f"{', '.join(files)}: gin files include each other in a circle") from error
    except (OSError, ImportError, *_REFUSALS) as error:
        if unset := _UNSET.search(str(error)):
            raise UserError(f"nothing sets %{unset[1]}; give {unset[1]} = ...") from error
        added = "".join(hint(str(error)) for hint in (hint_at, *hints))
        where = "".join(f'\nin --gin_param="{p}"' for p in parameters if not _can_be_read(p))
        reason = reason_of(error, files)
        raise UserError(f"the gin configuration cannot be used: {reason}{where}{added}") from error
    _check_owners(parameters)
    values = bound_parameters()
    check_macros(values)
    warn_of_no_owner(values, known)


@contextlib.contextmanager
def _without_logging() -> Iterator[None]:
    """gin reports each path that it tries as an error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _can_be_read(binding: str) -> bool:
    """Whether it is one binding of gin's."""
    try:
        gin.config.parse_value(binding.partition("=")[2].strip())
        delegate = gin.config.ParserDelegate(skip_unknown=True)
        list(gin.config_parser.ConfigParser(binding, delegate))
    except _REFUSALS:
        return False
    return True


def _check_encoding(path: str) -> None:
    """Raises a `UserError` for a file that is not plain UTF-8."""
    if not os.path.isfile(path):
        return
    try:
        with open(path, encoding="utf-8") as file:
            start = file.read()[:1]
    except UnicodeDecodeError as error:
        raise UserError(f"--gin_file={path} is not UTF-8 text: save it as that") from error
    if start == "\ufeff":
        raise UserError(
            f"--gin_file={path} begins with a byte order mark: save it as UTF-8 without one"
        )


def _check_owners(given: Sequence[str]) -> None:
    """Raises a `UserError` for a binding without an owner, or with a scope, that nothing refers to.

    gin takes `num_steps = 5` for a macro, to be used as `%num_steps`, and `train/num_steps = 5` for
    one in a scope.
    """
    text = gin.config_str(max_line_length=100_000)
    for binding in given:
        name, equals, value = (part.strip() for part in binding.partition("="))
        scope, slash, rest = name.rpartition("/")
        if slash and f"@{scope}/" not in text and f"%{name}" not in text:
            raise UserError(
                f'"{name} = {value}" is of the scope {scope}, in which nothing is made '
                f"(@{scope}/...), so nothing would use it: did you mean {scope}.{rest}?"
            )
        if equals and re.fullmatch(r"\w+", name) and f"%{name}" not in text:
            owned = [known for known in parameters(text) if known.endswith(f".{name}")]
            raise UserError(
                f'"{binding}" names no owner of {name}, so nothing would use it: give '
                f"{' or '.join(owned) or f'train.{name}'} = {value}"
            )


def parse_text(text: str, skip_unknown: bool = False) -> None:
    """Replaces gin's global configuration by `text`, for instance the config.gin of a workdir.

    Args:
        text: gin bindings.
        skip_unknown: pass over parameters of functions and classes that nobody imported.

    Raises:
        UserError: a name is unknown, or the text is malformed; the message is gin's.
    """
    gin.clear_config()
    try:
        gin.parse_config(text, skip_unknown=skip_unknown)
    except _REFUSALS as error:
        raise UserError(first_line(error)) from error


def import_modules(text: str) -> None:
    """Imports the modules that a text names, which register a user's own parts with gin.

    Raises:
        UserError: one cannot be imported.
    """
    for line in text.splitlines():
        if line.startswith(("import ", "from ")):
            try:
                with gin.unlock_config():
                    gin.parse_config(line)
            except (ImportError, *_REFUSALS) as error:
                reason = f"{first_line(error)}{hint_at(str(error))}"
                raise UserError(f'"{line}" fails: {reason}') from error


def bind(name: str, value) -> None:
    """Sets one parameter of a configuration that is already locked."""
    with gin.unlock_config():
        gin.bind_parameter(name, value)


@contextlib.contextmanager
def apart(text: str | None = None) -> Iterator[None]:
    """Around what may change gin's configuration, which is what it was before in the end.

    Args:
        text: read first in place of what is there, if given; see `parse_text`.
    """
    with _ONE_AT_A_TIME:
        state = gin.config
        bindings = (state._CONFIG, state._OPERATIVE_CONFIG)
        kept = [{owner: dict(bound) for owner, bound in part.items()} for part in bindings]
        singletons, imports = dict(state._SINGLETONS), set(state._IMPORTS)
        was_locked = gin.config_is_locked()
        try:
            if text is not None:
                parse_text(text, skip_unknown=True)
            yield
        finally:
            gin.clear_config()
            for part, before in zip(bindings, kept):
                part.update(before)
            state._SINGLETONS.update(singletons)
            state._IMPORTS.update(imports)
            state._set_config_is_locked(was_locked)


def call(configurable: Callable, *arguments, **named):
    """Calls what gin configures.

    Raises:
        UserError: the configuration lacks a required parameter, or refers to itself.
    """
    try:
        return configurable(*arguments, **named)
    except RecursionError as error:
        if circle := _circle():
            raise UserError(f"{' and '.join(circle)}: what is made must not need itself") from error
        raise
    except TypeError as error:
        if message := about_a_lack(str(error)):
            raise UserError(message) from error
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if not reason.startswith("Required bindings"):
            raise
        raise UserError(
            f"{reason}. Files of gin/base, gin/networks, gin/ablations and gin/sampling are given "
            "after that of an experiment, such as --gin_file=gin/digits.gin"
        ) from error


def _circle() -> list[str]:
    """Bindings whose value is made of what they are a parameter of."""
    values = bound_parameters()
    return [f"{n} = {v}" for n, v in values.items() if owner_of(n) in made_for(v, values)]


def made_for(value: str, values: dict[str, str]) -> set[str]:
    """What is made for a value, and for the parameters of that."""
    found: set[str] = set()
    new = set(_MADE.findall(value))
    while new:
        found |= new
        within = [_MADE.findall(v) for name, v in values.items() if owner_of(name) in new]
        new = {made for more in within for made in more} - found
    return found


def owner_of(name: str) -> str:
    return name.rpartition(".")[0]


def operative_text() -> str:
    """What was bound, and every parameter of what was called, defaults included; sorted lines.

    Before them come the imports of a user's own parts.
    """
    values = {**called_parameters(), **bound_parameters()}
    imports = sorted({statement.format() for statement in gin.config._IMPORTS})
    lines = [*imports, *(f"{name} = {value}" for name, value in sorted(values.items()))]
    return "".join(f"{line}\n" for line in lines)


def bound_parameters() -> dict[str, str]:
    """Every parameter that a file or a binding gives a value."""
    return parameters(gin.config_str(max_line_length=100_000))


def called_parameters() -> dict[str, str]:
    """Every parameter of what was called since the configuration was read, defaults included."""
    return parameters(gin.operative_config_str(max_line_length=100_000))


def parameters(text: str) -> dict[str, str]:
    """The `name = value` lines of `text` as a dictionary of strings."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition(" = ")
        if equals and not line.startswith("#"):
            owner, _, parameter = name.strip().rpartition(".")
            value = re.sub(r"@([\w.]+)", lambda match: f"@{_in_full(match[1])}", value.strip())
            found[f"{_in_full(owner)}.{parameter}" if owner else parameter] = value
    return found


def _in_full(selector: str) -> str:
    """A name that gin shortened, as it was registered, if it is one of `named_in_full`."""
    names = gin.config._REGISTRY.matching_selectors(selector)
    return names[0] if len(names) == 1 and names[0].startswith(named_in_full) else selector


def run_name(files: Sequence[str]) -> str:
    """`gin/cifar10.gin`, `gin/ablations/blur_10.gin` -> `cifar10+ablations-blur_10`."""
    names = []
    for file in files:
        path = os.path.splitext(os.path.normpath(file))[0].split(os.sep)
        if "gin" in path:
            path = path[len(path) - path[::-1].index("gin") :]
        names.append("-".join(path[-2:]))
    return "+".join(names)
