"""Whether samples are of the classes that they were asked to be of."""

from __future__ import annotations

import gin
import numpy as np

from bdm_tf.data.labels import labels_among
from bdm_tf.evaluation.evaluator import Context, Unavailable, check_samples, check_split
from bdm_tf.evaluation.sampled_features import SampledFeatures
from bdm_tf.system.errors import check_counts

_FOLDS = 5


@gin.register
class LabelAccuracy(SampledFeatures):
    """The share of samples that are taken for what they were asked to be: "label_accuracy".

    They are taken so by scikit-learn's vote of the nearest training images in feature space. With
    the figure comes how often that is right about the training images ("of_real"), each of which
    has four fifths of the others to vote.

    Args:
        context: see `Context`.
        neighbours: images that vote.
        max_images: at most so many samples, and as many training images, are used.
    """

    names = ("label_accuracy",)

    def __init__(self, context: Context, neighbours: int = 3, max_images: int = 10_000):
        check_counts("LabelAccuracy", 1, 1000, neighbours=neighbours)
        check_counts("LabelAccuracy", neighbours, max_images=max_images)
        (name,), conditions = self.names, context.conditions
        if conditions.classes is None:
            raise Unavailable(name, "it needs a model that was trained with labels")
        if conditions.label is not None:
            raise Unavailable(name, "evaluate.label leaves real images of one class alone")
        check_split(name, context, "train", images=True)
        check_samples(name, context, 1)
        reference = context.reference
        labels = labels_among(reference.images("train"), conditions.classes.names)
        self._labels = labels[reference.chosen("train", max_images)]
        if len(self._labels) < _FOLDS * neighbours:
            raise Unavailable(name, f"it needs {_FOLDS * neighbours} training images")
        self._features = reference.features("train", max_images)
        self._described = reference.describe("train")
        self._conditions, self._seed = conditions, context.seed
        self._neighbours, self._names = neighbours, conditions.classes.names
        super().__init__(max_images)

    def result(self) -> dict[str, dict]:
        from sklearn.model_selection import KFold, cross_val_score
        from sklearn.neighbors import KNeighborsClassifier

        classifier = KNeighborsClassifier(self._neighbours)
        folds = KFold(_FOLDS, shuffle=True, random_state=0)
        of_real = cross_val_score(classifier, self._features, self._labels, cv=folds).mean()
        drawn = self._drawn()
        asked_for = np.asarray(self._conditions.labels(self._seed, np.arange(len(drawn))))
        right = classifier.fit(self._features, self._labels).predict(drawn) == asked_for
        figure = {
            "value": float(np.mean(right)),
            "of_real": float(of_real),
            "of_class": {
                self._names[c]: float(right[asked_for == c].mean()) for c in np.unique(asked_for)
            },
            "num_generated": len(drawn),
            "num_real": len(self._labels),
            "neighbours": self._neighbours,
            **self._described,
        }
        return {self.names[0]: figure}
