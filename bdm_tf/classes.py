"""The classes that a model's images may be of."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from bdm_tf.noise import LABEL, choices, image_seeds
from bdm_tf.system.errors import UserError, check_between, is_whole

ANY_CLASS = -1  # in place of a class: one is drawn as the training images have them
EACH = "each"  # in place of a class: all of them in turn
MOST_GUIDANCE = 100.0  # images are black and white long before
_SHOWN = 10  # of many names


@dataclass(frozen=True)
class Classes:
    """Names, and how often the training images have them.

    Attributes:
        names: one a class, all different; the class's number is its place.
        counts: training images of each.
        dropout: share of the training images whose label is hidden from the network, so that it
            learns to do without. Guidance needs some.

    Raises:
        UserError: they do not go together.
    """

    names: Sequence[str]
    counts: Sequence[int]
    dropout: float

    def __post_init__(self):
        names, counts = self.names, self.counts
        listed = isinstance(names, (tuple, list)) and all(isinstance(n, str) for n in names)
        if not listed or not len(set(names)) == len(names) > 0:
            raise UserError(f"Model.class_names={names!r} must be different names, in a list")
        listed = isinstance(counts, (tuple, list)) and len(counts) == len(names)
        if not listed or not all(is_whole(n) and n >= 0 for n in counts):
            raise UserError(f"Model.class_counts={counts!r} must be {len(names)} numbers of images")
        if not sum(counts):
            raise UserError(f"Model.class_counts={counts!r} must name an image at least")
        check_between("Model.label_dropout", self.dropout, 0, 1, without_high=True)

    def __len__(self) -> int:
        return len(self.names)

    def in_words(self) -> str:
        """Such as `2 classes: 0 cat (120 images), 1 dog (97 images)`; of many, the first ten."""
        known = [f"{i} {n} ({c} images)" for i, (n, c) in enumerate(zip(self.names, self.counts))]
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        return f"{len(known)} classes: {', '.join(known[:_SHOWN])}{more}"

    def draw(self, seed: tf.Tensor, first, count: int) -> tf.Tensor:
        """Classes int32 `[count]` of the images of a seed from number `first` on.

        They are drawn as the training images have them; image i's belongs to (seed, i).
        """
        return choices(image_seeds(seed, first, count), tf.constant(self.counts), LABEL)


def labels_spec() -> tf.TensorSpec:
    """Of what a SavedModel is given: a class, or one an image; `listed` makes the first a list."""
    return tf.TensorSpec(None, tf.int32, name="label")


def listed(label: tf.Tensor) -> tf.Tensor:
    """Classes int32 `[n]`, also of a single one."""
    return tf.reshape(label, [-1])


def label_checks(
    classes: Classes, label: tf.Tensor, guidance: tf.Tensor, num_images: tf.Tensor
) -> list:
    """What fails, when the graph runs, for labels and a guidance that a model does not take."""
    most = len(classes) - 1
    count = tf.shape(label)[0]
    checks = [
        tf.debugging.assert_equal(
            (count == 1) | (count == num_images), True, "label must have 1 or num_images entries"
        ),
        tf.debugging.assert_greater_equal(label, ANY_CLASS, "label must be at least -1"),
        tf.debugging.assert_less_equal(label, most, f"label must be at most {most}"),
        tf.debugging.assert_non_negative(guidance, "guidance must not be negative"),
    ]
    if not classes.dropout:
        message = "guidance must be 1: the model does not know images without a label"
        checks.append(tf.debugging.assert_equal(guidance, 1.0, message))
    return checks


def given_checks(classes: Classes, label: tf.Tensor) -> list:
    """What fails, when the graph runs, for no label where the model knows no images without."""
    if classes.dropout:
        return []
    message = "label must be given: the model does not know images without"
    return [tf.debugging.assert_non_negative(label, message)]


def check_given(num_classes: int | None, label, guidance) -> tf.Tensor:
    """The labels that a network is given, int32 `[B]`; of tensors in a graph nothing is known.

    Args:
        num_classes: of the network, whose number is the label of none; None if it knows no labels,
            0 if it does not say how many.
        label: whole numbers `[B]`.
        guidance: a number; tensors are not checked.

    Raises:
        UserError: it does not take them.
    """
    if num_classes is None:
        raise UserError("the model was trained without labels, and takes none")
    label = tf.convert_to_tensor(label)
    if not label.dtype.is_integer or label.shape.rank not in (1, None):
        given = f"{label.dtype.name} {list(label.shape)}"
        raise UserError(f"label must be int32 [B], one an image, not {given}")
    known = tf.get_static_value(label)
    if num_classes and known is not None and not ((0 <= known) & (known <= num_classes)).all():
        raise UserError(
            f"label={known.tolist()} must lie in [0, {num_classes}], where {num_classes} is none"
        )
    if isinstance(guidance, float | int):
        check_between("guidance", guidance, 0, MOST_GUIDANCE)
    return tf.cast(label, tf.int32)


def in_turn(places: tf.Tensor, count: int, num_classes: int) -> tf.Tensor:
    """The classes of images at int32 `places` of `count`, as many of each class as there can be.

    They are sorted, so that a grid has a row of each if there is room.
    """
    return places * num_classes // max(count, num_classes)


def class_number(name: str, names: Sequence[str]) -> int:
    """The class that a user means by a name or a number, below `len(names)`.

    Where all names are numbers, a number is a name.

    Raises:
        UserError: there is none.
    """
    if name in names:
        return names.index(name)
    are_numbers = all(n.isdigit() for n in names)  # and so a number is a name
    if name.isascii() and name.isdigit() and int(name) < len(names) and not are_numbers:
        return int(name)
    near = difflib.get_close_matches(name, names, _SHOWN, 0.5)
    near = list(names) if are_numbers or not near else near
    more = f" and {len(near) - _SHOWN} more" if len(near) > _SHOWN else ""
    number = "" if are_numbers else f"a number from 0 to {len(names) - 1} or "
    raise UserError(
        f"{name!r} is no class of this model: give {number}a name, such as "
        f"{', '.join(near[:_SHOWN])}{more}"
    )


def asked_for(
    classes: Classes | None, prefix: str, label: str | int | None, guidance: float | None
) -> tuple[int | None, float | None]:
    """The class and the guidance that a user asks for, checked; None for what is not asked for.

    Args:
        classes: of the model, None where it knows no labels.
        prefix: of the names that they were given by: "--" or "evaluate.".
        label: a class by name or number.
        guidance: a number.

    Raises:
        UserError: the model does not know it.
    """
    if classes is None:
        for name, value in (("label", label), ("guidance", guidance)):
            if value is not None:
                raise UserError(
                    f"{prefix}{name}={value}: the model was trained without labels; "
                    "gin/digits_labels.gin shows how to train with them"
                )
        return None, None
    if guidance is not None:
        check_between(f"{prefix}guidance", guidance, 0, MOST_GUIDANCE)
        guidance = float(guidance)
        if guidance != 1:
            check_guidable(classes, f"{prefix}guidance")
    if label is None:
        return None, guidance
    number = class_number(str(label), classes.names)
    if not classes.counts[number]:
        raise UserError(f"{prefix}label={label}: no training image was of this class")
    return number, guidance


def check_guidable(classes: Classes | None, name: str = "sample.guidance") -> None:
    """Raises a `UserError` if a model cannot do with other guidance than 1."""
    if classes is None:
        raise UserError(f"{name} needs a model of images with labels, which this is not")
    if not classes.dropout:
        raise UserError(
            f"{name} needs a model that was trained without labels, too, and this one's "
            "train.label_dropout was 0"
        )
