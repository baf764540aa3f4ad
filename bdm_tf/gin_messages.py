"""What to add to gin's own messages, so that they name the way out."""

from __future__ import annotations

import difflib
import inspect
import re
import tokenize
import unicodedata
from collections.abc import Sequence

import gin

_QUOTED_OR_COMMENT = re.compile(r"'[^']*'|\"[^\"]*\"|#.*")
_LACKING = re.compile(r"(\w+)(?:\.__init__)?\(\) missing .* argument.*?: '(\w+)'")


def hint_at(message: str) -> str:
    """What to add to gin's message about a parameter that there is not, or a value that is none."""
    if "malformed node" in message:
        return (
            "\nA value is a number, text in quotes, a list of these, or what a class makes, with "
            "an @: train.optimizer = @keras.optimizers.AdamW()"
        )
    if "No module named" in message:
        return "\nPut the folder that it is in on PYTHONPATH."
    nobody = re.search(r"No configurable matching (?:reference )?'@?([\w./]+)", message)
    if nobody:
        names = [n.rpartition(".")[2] for n in gin.config._REGISTRY._selector_map]
        near = difflib.get_close_matches(nobody[1].rpartition(".")[2], names, n=1, cutoff=0.7)
        if near:
            return f"\nDid you mean {near[0]}?"
        return "\nA class of one's own needs @gin.register, its module an import in a gin file."
    unknown = re.search(r"Configurable '(.*?)' doesn't have a parameter named '(.*?)'", message)
    if not unknown:
        return ""
    owner = gin.get_configurable(unknown[1])
    called = owner.__init__ if inspect.isclass(owner) else owner
    known = [name for name in inspect.signature(called).parameters if name != "self"]
    near = difflib.get_close_matches(unknown[2], known, n=1)
    return f"\nDid you mean {near[0]}?" if near else f"\nIt has {', '.join(known)}."


def reason_of(error: Exception, files: Sequence[str]) -> str:
    """What gin raised, in words; of a text that is no gin with its line, and what is odd in that.

    Args:
        error: what it raised.
        files: what it was reading, which not every error says.
    """
    if isinstance(error, tokenize.TokenError):
        message, (number, _) = error.args
        return f"{message} ({', '.join(files)}, line {number}): is a bracket or a quote left open?"
    if not isinstance(error, SyntaxError) or not error.text:
        return str(error)
    line = error.text.strip(" \t\r\n")
    bare = _QUOTED_OR_COMMENT.sub("", line)
    odd = [c for c in dict.fromkeys(bare) if not (c.isascii() and c.isprintable()) and c != "\t"]
    named = [f"{c!r} is U+{ord(c):04X} {unicodedata.name(c, '')}".rstrip() for c in odd]
    hint = f"\n{', '.join(named)}: outside of quotes write ASCII" if odd else ""
    seen = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return f"{error}\n    {seen}{hint}"


def about_a_lack(message: str) -> str | None:
    """What to say in place of a message about a parameter that nobody gave; None for any other."""
    lacking = _LACKING.search(message)
    if lacking is None:
        return None
    if lacking[2] == "context":
        return f"@{lacking[1]}() is made by the evaluation: give @{lacking[1]}, without parentheses"
    name = ".".join(lacking.groups())
    return f'{name} is missing: give --gin_param="{name} = ..."'
