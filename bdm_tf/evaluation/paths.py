"""Where an evaluation finds and leaves things."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from bdm_tf.system.files import check_replaces, check_writable


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
                check_writable(os.path.join(self.export_statistics, f"{split}.npz"))
