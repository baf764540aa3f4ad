"""The `digits` data set: 1,797 real handwritten digits, bundled with scikit-learn."""

from __future__ import annotations

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """8x8 grey images of handwritten digits; needs no network.

    Every fifth image is the test split, the others are the train split.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Values 0..16 scaled to 0..255; every fifth image is test."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The test set of the UCI Optical Recognition of Handwritten Digits data.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=(
                "E. Alpaydin and C. Kaynak (1998). Optical Recognition of Handwritten Digits. "
                "UCI Machine Learning Repository."
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(False), "test": self._generate_examples(True)}

    def _generate_examples(self, test: bool):
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        for i, (image, label) in enumerate(zip(images, labels)):
            if (i % 5 == 4) == test:
                yield i, {"image": image, "label": int(label)}
