"""gin's macros: `name = 5`, to be used as `%name`."""

from __future__ import annotations

import re
from collections.abc import Collection

from absl import logging

from bdm_tf.system.errors import UserError

_MACRO, _QUOTED = re.compile(r"%([\w./]+)"), re.compile(r"'[^']*'|\"[^\"]*\"")


def check_macros(values: dict[str, str]) -> None:
    """Raises a `UserError` if one of the bound parameters is a macro that is made of itself."""
    used = {name: _macros_in(value) for name, value in values.items()}
    for name, macros in used.items():
        below = set(macros)
        while new := {other for macro in below for other in used.get(macro, ())} - below:
            below |= new
        if name in below:
            raise UserError(f"{name} = {values[name]}: a macro must not be made of itself")


def warn_of_no_owner(values: dict[str, str], known: Collection[str]) -> None:
    """Warns of macros that nothing refers to: their owner may have been forgotten.

    Args:
        values: all that is bound.
        known: what was bound before.
    """
    used = {name for value in values.values() for name in _macros_in(value)}
    for name in sorted(values.keys() - used - set(known)):
        if re.fullmatch(r"\w+", name):
            logging.warning(
                '"%s = %s" in a gin file names no owner of %s, and nothing uses it as %%%s: it has '
                "no effect",
                *(name, values[name], name, name),
            )


def _macros_in(value: str) -> set[str]:
    return set(_MACRO.findall(_QUOTED.sub("", value)))
