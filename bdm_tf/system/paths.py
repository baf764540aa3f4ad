"""Paths as users give them: `~` is their home, and what is no path to TensorFlow is refused."""

from __future__ import annotations

import os
import sys

from absl import flags, logging

from bdm_tf.system.errors import UserError, no_file_system

flags.disclaim_key_flags()  # what is defined here is the caller's, and so in its --help
_PATTERN = "*?[]\\"
_LONGEST = 4095  # bytes of a path on Linux


def check_literal(name: str, path: str) -> None:
    """Raises a `UserError` for a path that TensorFlow takes for a pattern, or cannot reach.

    It looks for checkpoints and SavedModels by patterns, and so never finds those at such paths.
    Which file systems it has is known once it is imported.
    """
    if "\0" in path:
        raise UserError(f"{name}={path!r} contains a NUL character, which no path can hold")
    found = sorted(set(path) & set(_PATTERN))
    if found:
        raise UserError(
            f"{name}={path} contains {' '.join(found)}, which TensorFlow takes for a pattern of "
            "names: give a path without it"
        )
    scheme, separator, _ = path.partition("://")
    tensorflow = sys.modules.get("tensorflow")
    if separator and tensorflow and scheme not in tensorflow.io.gfile.get_registered_schemes():
        raise UserError(f"{name}={path}: {no_file_system(scheme)}")


def expanded(name: str, path: str | os.PathLike) -> str:
    """A path with the home folder in place of `~`.

    Args:
        name: of the argument.
        path: what was given.

    Raises:
        UserError: it is no path, or there is no home folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UserError(f"{name}={path!r} must be a path, as text")
    path = os.fspath(path)
    if path == "~" or path.startswith("~/"):
        check_home("a path without ~")
    return os.path.expanduser(path)


def check_ending(name: str, path: str | None, endings: tuple[str, ...]) -> None:
    """Raises a `UserError` for a path, given as `name`, that ends in none of these."""
    if path and not path.lower().endswith(endings):
        *others, last = endings
        wanted = f"{', '.join(others)} or {last}" if others else last
        raise UserError(f"{name}={path} must end in {wanted}")


def check_home(instead: str) -> None:
    """Raises a `UserError` if HOME is empty, which Python takes for the root folder.

    Args:
        instead: what the user may give, in words.
    """
    if os.environ.get("HOME") == "":
        raise UserError(f"HOME is empty; set it, or give {instead}")


def default_cache_dir(instead: str = "XDG_CACHE_HOME") -> str:
    """The user's own cache folder, where what can be made again is kept.

    A relative XDG_CACHE_HOME is ignored, with a warning, as its specification says.

    Raises:
        UserError: see `check_home`.
    """
    caches = os.environ.get("XDG_CACHE_HOME")
    if caches and not os.path.isabs(caches):
        text = "XDG_CACHE_HOME=%s is relative, and so ignored: ~/.cache is used"
        logging.log_first_n(logging.WARNING, text, 1, caches)
        caches = None
    if not caches:
        check_home(instead)
        caches = os.path.expanduser("~/.cache")
    return os.path.join(caches, "bdm_tf")


def define_path(name: str, default: str | None, help: str, *, literal: bool = False):
    """`flags.DEFINE_string` for a path, in which `~` is the home folder.

    Args:
        name, default, help: see `flags.DEFINE_string`.
        literal: refuse what `check_literal` does.
    """
    return flags.DEFINE(_Path(literal and f"--{name}"), name, default, help)


def define_paths(name: str, help: str):
    """`define_path` for a flag that may be given several times."""
    return flags.DEFINE_multi(_Path(False), flags.ArgumentSerializer(), name, [], help)


class _Path(flags.ArgumentParser):
    def __init__(self, literal: str | bool):
        super().__init__()
        self._literal = literal

    def parse(self, argument):
        try:
            path = expanded("path", argument)
        except UserError as error:
            raise ValueError(error.message) from error
        if not path:
            raise ValueError("it is empty: give a path, or leave the flag out")
        if path.startswith("~"):
            raise ValueError(
                f"there is no user {path[1:].partition('/')[0]}; a name that begins so is given as "
                f"./{path}"
            )
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                "it is not UTF-8, which TensorFlow needs: rename it, or, where it is and Python "
                "reads it as something else, set PYTHONUTF8=1"
            ) from error
        if "://" not in path and len(os.path.abspath(path).encode()) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} bytes")
        if self._literal:
            try:
                check_literal(str(self._literal), path)
            except UserError as error:
                raise ValueError(error.message) from error
        return path

    def flag_type(self):
        return "path"
