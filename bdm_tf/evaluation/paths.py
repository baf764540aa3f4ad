"""Where an evaluation finds and leaves things."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import tensorflow as tf

from bdm_tf.system.errors import UserError
from bdm_tf.system.files import check_replaces, check_writable, read_npz


@dataclass(frozen=True)
class Paths:
    """Files and folders of an evaluation.

    Attributes:
        cache_dir: of what is known about real images.
        data_dir, on_corrupt_image: handed to `data.load`.
        features: see `make_features`; None takes the network that gin names.
        statistics: "train" or "eval" to a `.npz` with `mu` and `sigma`.
        export_statistics: folder for the statistics that were used.
        save_samples: `.npz` for the samples.
    """

    cache_dir: str
    data_dir: str | None = None
    on_corrupt_image: str = "stop"
    features: str | None = None
    statistics: dict[str, str] = field(default_factory=dict)
    export_statistics: str | None = None
    save_samples: str | None = None

    def check(self) -> None:
        """Raises a `UserError`, before hours of samples are drawn, for what cannot be written."""
        check_writable(self.save_samples)
        check_replaces(self.save_samples, ["images"])
        if self.export_statistics:
            for split in ("train", "eval"):
                path = os.path.join(self.export_statistics, f"{split}.npz")
                check_writable(path)
                _check_statistics(path)


def _check_statistics(path: str) -> None:
    """Raises a `UserError` for a file that is there and holds no statistics."""
    if not tf.io.gfile.exists(path):
        return
    try:
        read_npz(path, needed=("mu", "sigma"))
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise UserError(
            f"--export_statistics: {path} holds no statistics ({error}) and is not replaced: give "
            "another folder"
        ) from error
