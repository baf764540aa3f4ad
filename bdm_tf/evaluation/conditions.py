"""What is asked of a model of images with labels: of which classes, and how closely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from bdm_tf.classes import ANY_CLASS, Classes


@dataclass(frozen=True)
class Conditions:
    """Classes and guidance of the samples.

    Attributes:
        classes: of the subject; None where it knows no labels.
        label: the class of all samples; None for classes drawn as the training images have them.
        guidance: None is the model's own.
    """

    classes: Classes | None = None
    label: int | None = None
    guidance: float | None = None

    def labels(self, seed: int, index: np.ndarray) -> np.ndarray | None:
        """The classes int32 `[n]` of samples whose numbers follow each other, if there are any."""
        if self.classes is None:
            return None
        if self.label is not None:
            return np.full(len(index), self.label, np.int32)
        return self.classes.draw(tf.constant([0, seed]), int(index[0]), len(index)).numpy()

    def given(self, count: int) -> dict[str, tf.Tensor]:
        """What a function that draws so many images takes besides the seed."""
        if self.classes is None:
            return {}
        label = ANY_CLASS if self.label is None else self.label
        guidance = {} if self.guidance is None else {"guidance": tf.constant(self.guidance)}
        return {"label": tf.fill([count], label), **guidance}

    def describe(self) -> dict:
        """What a result must say of them."""
        if self.classes is None:
            return {}
        name = None if self.label is None else self.classes.names[self.label]
        return {"label": name, "guidance": self.guidance}


ANY = Conditions()
