"""Gin text: read it, save it, compare it. Imports nothing of the library but its error."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Sequence

import gin
from absl import logging

from bdm_tf.errors import UserError

# A run may go on with other values of these, and of all that samples are drawn with: they change
# when things happen, with how much memory or on what device, not what is learnt.
CADENCES = frozenset(
    f"train.{name}"
    for name in (
        "num_steps steps_per_call checkpoint_every keep_checkpoints keep_every log_every "
        "eval_every eval_images accumulation_steps async_checkpoints jit_compile"
    ).split()
) | {"UNet.remat", "DCT.method", "export_saved_model.chunk_size"}
_SAMPLING = ("sample.", "train.sample_")
# What is noted once it was measured; runs of version 0.1.0 get it when they go on.
_MEASURED = frozenset({"Model.spectrum_sha256"})

_MADE = re.compile(r"@([\w./]+)\(\)")
_REFERENCE = re.compile(r"@([\w./]+)")
_AVERAGING = {"tfa.optimizers.MovingAverage", "tfa.optimizers.SWA"}

# What to add to gin's message; each is given the message. Those who register with gin add theirs.
hints: list[Callable[[str], str]] = []
# Beginnings of names that gin must not shorten in a text: what is short enough depends on what else
# is registered, and that on what is installed.
named_in_full: tuple[str, ...] = ()


def parse(files: Sequence[str], parameters: Sequence[str], search_paths: Iterable[str]) -> None:
    """Reads gin files, then single parameters, into gin's global configuration.

    Args:
        files: paths of gin files; the later ones override the earlier ones.
        parameters: bindings such as `"train.batch_size = 64"`; they override the files.
        search_paths: folders in which gin files and their includes are looked for.

    Raises:
        UserError: a file is missing, or a name, parameter or value is unknown or malformed.
    """
    gin.clear_config()
    overlay(files, parameters, search_paths)


def overlay(files: Sequence[str], parameters: Sequence[str], search_paths: Iterable[str]) -> None:
    """`parse` on top of the configuration that is there."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)  # gin reports each path it tries as an error
    for path in search_paths:
        gin.add_config_file_search_path(path)
    files = [os.path.expanduser(file) for file in files]
    files = [os.path.abspath(file) if os.path.exists(file) else file for file in files]
    parameters = list(parameters)
    for file in files:
        gin.add_config_file_search_path(os.path.dirname(os.path.abspath(file)))
    # What the library's files include is the library's, not its namesake in the current folder.
    prefixes = gin.config._LOCATION_PREFIXES
    prefixes.sort(key=lambda prefix: prefix == "")
    try:
        with gin.unlock_config():
            gin.parse_config_files_and_bindings(files, parameters)
    except (
        OSError,
        ValueError,
        RuntimeError,
        SyntaxError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:
        added = "".join(hint(str(error)) for hint in (_hint, *hints))
        raise UserError(f"the gin configuration cannot be used: {error}{added}") from error
    finally:
        logging.set_verbosity(verbosity)
    _check_owners(parameters)


def _check_owners(given: Sequence[str]) -> None:
    """Raises a `UserError` for a binding without an owner that nothing refers to.

    gin takes `num_steps = 5` for a macro, to be used as `%num_steps`.
    """
    text = gin.config_str(max_line_length=100_000)
    for binding in given:
        name, equals, value = (part.strip() for part in binding.partition("="))
        if equals and re.fullmatch(r"\w+", name) and f"%{name}" not in text:
            owned = [known for known in parameters(text) if known.endswith(f".{name}")]
            raise UserError(
                f'"{binding}" names no owner of {name}, so nothing would use it: give '
                f"{' or '.join(owned) or f'train.{name}'} = {value}"
            )


def _hint(message: str) -> str:
    """What to add to gin's message about a parameter that there is not, or a value that is none."""
    if "malformed node" in message:
        return (
            "\nA value is a number, text in quotes, a list of these, or what a class makes, with "
            "an @: train.optimizer = @keras.optimizers.AdamW()"
        )
    nobody = re.search(r"No configurable matching (?:reference )?'@?([\w./]+)", message)
    if nobody:
        names = [n.rpartition(".")[2] for n in gin.config._REGISTRY._selector_map]
        near = difflib.get_close_matches(nobody[1].rpartition(".")[2], names, n=1)
        return f"\nDid you mean {near[0]}?" if near else ""
    unknown = re.search(r"Configurable '(.*?)' doesn't have a parameter named '(.*?)'", message)
    if not unknown:
        return ""
    owner = gin.get_configurable(unknown[1])
    called = owner.__init__ if inspect.isclass(owner) else owner
    known = [name for name in inspect.signature(called).parameters if name != "self"]
    near = difflib.get_close_matches(unknown[2], known, n=1)
    return f"\nDid you mean {near[0]}?" if near else f"\nIt has {', '.join(known)}."


def parse_text(text: str, skip_unknown: bool = False) -> None:
    """Replaces gin's global configuration by `text`, for instance the config.gin of a workdir.

    Args:
        text: gin bindings.
        skip_unknown: pass over parameters of functions and classes that nobody imported.

    Raises:
        UserError: a name is unknown, or the text is malformed.
    """
    gin.clear_config()
    try:
        gin.parse_config(text, skip_unknown=skip_unknown)
    except (ValueError, RuntimeError, SyntaxError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"config.gin cannot be used: {error}") from error


def bind(name: str, value) -> None:
    """Sets one parameter of a configuration that is already locked."""
    with gin.unlock_config():
        gin.bind_parameter(name, value)


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
    values = parameters(gin.config_str(max_line_length=100_000))
    return [f"{n} = {v}" for n, v in values.items() if _owner(n) in _made_for(v, values)]


def _made_for(value: str, values: dict[str, str]) -> set[str]:
    """What is made for a value, and for the parameters of that."""
    found: set[str] = set()
    new = set(_MADE.findall(value))
    while new:
        found |= new
        within = [_MADE.findall(v) for name, v in values.items() if _owner(name) in new]
        new = {made for more in within for made in more} - found
    return found


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def operative_text() -> str:
    """What was bound, and every parameter of what was called, defaults included; sorted lines."""
    values = {**called_parameters(), **parameters(gin.config_str(max_line_length=100_000))}
    return "".join(f"{name} = {value}\n" for name, value in sorted(values.items()))


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


def ema_decay(values: dict[str, str]) -> float | None:
    """The decay of a run's averaged weights; None where its optimizer averages by itself.

    Args:
        values: `parameters` of the run's configuration.
    """
    used = _made_for(values.get("train.optimizer", ""), values)
    by_itself = any(name in _AVERAGING or values.get(f"{name}.use_ema") == "True" for name in used)
    decay = values.get("train.ema_decay")
    return None if by_itself or decay is None else float(decay)


def _in_full(selector: str) -> str:
    """A name that gin shortened, as it was registered, if it is one of `named_in_full`."""
    names = gin.config._REGISTRY.matching_selectors(selector)
    return names[0] if len(names) == 1 and names[0].startswith(named_in_full) else selector


def differences(old: str, new: str, ignore: frozenset[str] = CADENCES) -> list[str]:
    """What differs between two operative texts, as readable lines.

    A parameter that is not there is the same as one that is None, and one that only one text has,
    of a class that nothing in it makes, is of no account.

    Args:
        old, new: operative texts.
        ignore: names that may differ, as may all that samples are drawn with.
    """
    a, b = parameters(old), parameters(new)
    drawing = sampling_parameters(a).keys() | sampling_parameters(b).keys()
    return [
        f"{name}: {a.get(name, '(absent)')} there, {b.get(name, '(absent)')} here"
        for name in sorted(a.keys() | b.keys())
        if a.get(name, "None") != b.get(name, "None")
        and not (name in ignore or name in drawing)
        and not (name in _MEASURED and "None" in (a.get(name, "None"), b.get(name, "None")))
        and not (name not in a and _is_idle(name, b) or name not in b and _is_idle(name, a))
    ]


def _is_idle(name: str, values: dict[str, str]) -> bool:
    """Whether a parameter is one of a class that nothing refers to, by whatever detours."""
    owner = _owner(name)
    return _is_part(owner) and owner not in _used(values)


def _used(values: dict[str, str]) -> set[str]:
    """What parameters refer to that are not themselves those of something unused."""
    found: set[str] = set()
    new = {name for name in map(_owner, values) if not _is_part(name)}
    while new:
        found |= new
        new = {
            reference
            for name, value in values.items()
            if _owner(name) in new
            for reference in _REFERENCE.findall(value)
        } - found
    return found


def _is_part(owner: str) -> bool:
    """Whether it is a class whose objects are given to something else by a gin value."""
    return owner != "Model" and owner[:1].isupper()


def sampling_parameters(values: dict[str, str]) -> dict[str, str]:
    """Those of the parameters that say how samples are drawn, and of nothing else."""
    made = {True: set[str](), False: set[str]()}
    for name, value in values.items():
        if name.startswith(("Model.", "train.", "sample.")):
            made[name.startswith(_SAMPLING)] |= _made_for(value, values)
    owners = made[True] - made[False]
    return {k: v for k, v in values.items() if k.startswith(_SAMPLING) or _owner(k) in owners}


def run_name(files: Sequence[str]) -> str:
    """`gin/cifar10.gin`, `gin/ablations/blur_10.gin` -> `cifar10+ablations-blur_10`."""
    names = []
    for file in files:
        path = os.path.splitext(os.path.normpath(file))[0].split(os.sep)
        if "gin" in path:
            path = path[len(path) - path[::-1].index("gin") :]
        names.append("-".join(path[-2:]))
    return "+".join(names)
