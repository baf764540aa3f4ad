"""What to add to gin's own messages, so that they name the way out."""

from __future__ import annotations

import difflib
import inspect
import re

import gin

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


def about_a_lack(message: str) -> str | None:
    """What to say in place of a message about a parameter that nobody gave; None for any other."""
    lacking = _LACKING.search(message)
    if lacking is None:
        return None
    if lacking[2] == "context":
        return f"@{lacking[1]}() is made by the evaluation: give @{lacking[1]}, without parentheses"
    name = ".".join(lacking.groups())
    return f'{name} is missing: give --gin_param="{name} = ..."'
