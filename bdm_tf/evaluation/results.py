"""Result files: figures, and the protocol they were measured by."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import tensorflow as tf

from bdm_tf.system.errors import UserError
from bdm_tf.system.files import why_not_written, write_atomically, writing

# What may differ between two measurements of the same thing; the images' hash says what they are.
_CIRCUMSTANCES = ("wall_seconds", "finished_at", "versions", "device", "replicas")


def key_of(protocol: dict, ignore: tuple[str, ...] = ()) -> str:
    """A SHA-256 of a protocol without its circumstances."""
    kept = {k: v for k, v in protocol.items() if k not in _CIRCUMSTANCES and k not in ignore}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def finished(path: str, protocol: dict, overwrite: bool) -> dict | None:
    """The results at `path`, if they are there and were measured by this protocol.

    Raises:
        UserError: they were measured by another one, or the file holds something else.
    """
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    may_be_results = _may_be_results(content)
    if overwrite:
        if not may_be_results:
            raise UserError(f"--output={path} holds no results: give another --output")
        return None
    try:
        there = json.loads(content)
        other = dict(there["protocol"])
    except (ValueError, KeyError, TypeError) as error:
        way_out = ", or --overwrite" if may_be_results else ""
        raise UserError(
            f"--output={path} exists and holds no results, or damaged ones: give another "
            f"--output{way_out}"
        ) from error
    if key_of(other) == key_of(protocol):
        return there
    old, new = _leaves(other), _leaves(protocol)
    changed = [
        f"{name}: {old.get(name, '(absent)')} there, {new.get(name, '(absent)')} here"
        for name in sorted(old.keys() | new.keys())
        if name.split("/")[0] not in _CIRCUMSTANCES and old.get(name) != new.get(name)
    ]
    raise UserError(
        f"--output={path} holds results of another protocol:\n  "
        + "\n  ".join(changed)
        + "\nGive another --output, or --overwrite."
    )


def _may_be_results(content: bytes) -> bool:
    """Whether a file holds results, or what may be left of them."""
    try:
        there = json.loads(content)
    except ValueError as error:
        return content[:1] in (b"{", b"") and "Extra data" not in str(error)
    if not isinstance(there, dict) or not {"figures", "skipped", "protocol"} & there.keys():
        return False
    figures = there.get("figures", {})
    sound = isinstance(figures, dict) and all(isinstance(f, dict) for f in figures.values())
    return sound and isinstance(there.get("protocol", {}), dict)


def write_results(path: str, results: dict) -> None:
    """Writes results as JSON, atomically.

    Raises:
        UserError: `path` cannot be written.
    """
    try:
        write_atomically(path, json.dumps(results, indent=2) + "\n")
    except (OSError, tf.errors.OpError) as error:
        reason = why_not_written(error)
        raise UserError(f"--output={path} cannot be written: {reason}") from error


class ResultLog:
    """`results.jsonl`: a row for each checkpoint and protocol.

    Args:
        path: the file.

    Raises:
        UserError: a line of it is damaged.
    """

    def __init__(self, path: str):
        self._path = path
        self.rows = self._read()

    def append(self, row: dict) -> None:
        """Adds a row to those that are there by now; the file is whole at every moment.

        Raises:
            UserError: it cannot be written, or a line of it is damaged.
        """
        self.rows = [*self._read(), row]
        lines = [json.dumps(row) + "\n" for row in self.rows]
        with writing(self._path):
            write_atomically(self._path, "".join(lines))

    def _read(self) -> list[dict]:
        if not tf.io.gfile.exists(self._path):
            return []
        if tf.io.gfile.isdir(self._path):
            raise UserError(f"{self._path} is a folder, where results go: move it away")
        with tf.io.gfile.GFile(self._path, "rb") as file:
            lines = file.read().splitlines()
        return [_row(self._path, i + 1, line) for i, line in enumerate(lines)]


def _row(path: str, number: int, line: bytes) -> dict:
    try:
        row = json.loads(line)
        row["step"], row["key"], row["figures"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged in line {number}: remove that line, and the checkpoint that it "
            "was about is scored again if it is still there"
        ) from error
    return row


def table(results: dict) -> str:
    """The figures as lines for people."""
    lines = []
    for name, figure in results["figures"].items():
        spread = figure.get("std", figure.get("standard_error"))
        value = "not finite" if figure["value"] is None else f"{figure['value']:.5g}"
        value += f" +- {spread:.2g}" if spread is not None else ""
        counts = [f"{k} {figure[k]}" for k in _COUNTS if k in figure]
        counts += [f"of real images {figure['of_real']:.5g}"] if "of_real" in figure else []
        against = " ".join(figure[k] for k in ("data_set", "split") if k in figure)
        lines.append(f"{name:<28} {value:<20} {', '.join([*counts, against])}")
    for name, reason in results["skipped"].items():
        lines.append(f"{name:<28} skipped: {reason}")
    return "\n".join(lines)


_COUNTS = ("num_generated", "num_eval", "num_images", "num_real")


def finite(values: Any) -> Any:
    """The same with None for what is no finite number: JSON has no word for it."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values


def _leaves(values: dict, path: str = "") -> dict[str, str]:
    """The entries of nested dictionaries as "outer/inner" to their JSON."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{path}{name}/")
        else:
            found[path + name] = json.dumps(value, default=str)
    return found
