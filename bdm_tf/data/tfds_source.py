"""Any TFDS image data set, by name."""

from __future__ import annotations

import re

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.data.images import ON_CORRUPT_IMAGE, Images, InMemoryImages
from bdm_tf.data.records import RecordImages
from bdm_tf.data.resize import checked_size, fit_tensor
from bdm_tf.data.tfds_builders import imported_tfds, known_builder, prepared_builder
from bdm_tf.system.errors import UserError, check_between, check_choice, check_text

_LABEL_KEY = "label"


@gin.register
class TFDSImages:
    """A data set of tensorflow_datasets; `digits` is bundled and needs no network.

    Args:
        name: TFDS's name, such as "cifar10" or "lsun/church_outdoor".
        image_size: `H = W`, or `(H, W)`: images are resized to cover it and centre-cropped. None
            keeps the stored size, which must then be the same for all.
        train_split, eval_split: TFDS splits, such as "train" or "train[:90%]"; None for no
            evaluation split.
        image_key: the feature that holds the image.
        label_key: the feature that holds the class, if there is one.
        max_memory_gb: decoded images up to this size are held in memory, more are streamed.

    Attributes:
        splits_overlap: whether the two splits were found to share images, when they were loaded.
    """

    def __init__(
        self,
        name: str,
        image_size=None,
        train_split: str = "train",
        eval_split: str | None = "test",
        image_key: str = "image",
        max_memory_gb: float = 4.0,
        label_key: str = _LABEL_KEY,
    ):
        check_text("TFDSImages", name=name, train_split=train_split, image_key=image_key)
        check_text("TFDSImages", label_key=label_key)
        if not re.fullmatch(r"\w[\w.+:/*-]*", name) or ".." in name:
            raise UserError(
                f"TFDSImages.name={name!r} is no name of a data set, such as 'cifar10' or "
                "'lsun/church_outdoor'"
            )
        if eval_split is not None:
            check_text("TFDSImages", eval_split=eval_split)
        check_between("TFDSImages.max_memory_gb", max_memory_gb, 0)
        self.splits_overlap = False
        self._name = name
        self._size = checked_size(image_size)
        self._splits = (train_split, eval_split)
        self._key, self._label_key = image_key, label_key
        self._max_bytes = max_memory_gb * 2**30

    def load(
        self, data_dir: str | None = None, on_corrupt_image: str = "stop"
    ) -> tuple[Images, Images | None]:
        """Returns the training split and, if `eval_split` names one, the evaluation split.

        Prepared data below `data_dir` (default: TFDS's own folder) is used; otherwise it is
        downloaded. `on_corrupt_image` is for folders; TFDS's records are checked when prepared.

        Raises:
            UserError: unknown data set or split, no image in it, or data that is not there and
                cannot be fetched.
        """
        check_choice("on_corrupt_image", on_corrupt_image, ON_CORRUPT_IMAGE)
        builder = prepared_builder(self._name, data_dir)
        shape = self._shape(builder)
        train_split, eval_split = self._splits
        train = self._records(builder, train_split, shape)
        evaluation = self._records(builder, eval_split, shape) if eval_split else None
        self.splits_overlap = evaluation is not None and train.overlaps(evaluation)
        if train.num_images * float(np.prod(shape)) > self._max_bytes:
            return train, evaluation
        array = np.empty((train.num_images, *shape), np.uint8)
        for start, batch in zip(range(0, len(array), 500), train.in_order(500)):
            array[start : start + len(batch)] = batch
        images = InMemoryImages(
            array, train.description, class_names=train.class_names, labels=train.labels
        )
        return images, evaluation

    def image_shape(self) -> tuple[int, int, int]:
        """The images' `(H, W, C)`, for which no data need be there.

        Raises:
            UserError: unknown data set, or no image in it.
        """
        tfds = imported_tfds()
        return self._shape(known_builder(tfds, self._name, tfds.core.constants.DATA_DIR))

    def class_names(self) -> tuple[str, ...]:
        """Those of the images' classes, for which no data need be there; empty without labels."""
        tfds = imported_tfds()
        builder = known_builder(tfds, self._name, tfds.core.constants.DATA_DIR)
        return _class_names(builder.info.features, self._label_key)

    def _shape(self, builder) -> tuple[int, int, int]:
        features = dict(builder.info.features)
        keys = sorted(key for key, feature in features.items() if _is_image(feature))
        if self._key not in keys:
            hint = f": TFDSImages.image_key must be one of {keys}" if keys else " nor any other"
            raise UserError(f"{self._name} has no uint8 image {self._key!r}{hint}")
        feature = features[self._key]
        *stored, channels = feature.shape
        size = self._size or tuple(stored)
        if None in size:
            raise UserError(f"the images of {self._name} differ in size: set TFDSImages.image_size")
        return (*size, channels or 3)

    def _records(self, builder, split: str, shape) -> RecordImages:
        from tensorflow_datasets.core.decode import SkipDecoding

        try:
            split_info = builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self._name} has no split {split!r}; it has {sorted(builder.info.splits)}"
            ) from error
        if split_info.num_examples < 1:
            raise UserError(f"{self._name}: the split {split!r} is empty")
        features, key = builder.info.features, self._key

        def decode(record):
            return fit_tensor(features.deserialize_example(record)[key], shape[:2], shape[2])

        def label(record):
            skipped = {key: SkipDecoding()}
            found = features.deserialize_example(record, decoders=skipped)[self._label_key]
            return tf.cast(found, tf.int32)

        shards = [(i.filename, i.skip, i.take) for i in split_info.file_instructions]
        images = RecordImages(
            shards,
            split_info.num_examples,
            shape,
            decode,
            key,
            _record_reader(builder),
            class_names=_class_names(features, self._label_key),
            label=label,
        )
        images.description = {
            "data_set": self._name,
            "version": str(builder.version),
            "split": split,
        }
        return images


def _is_image(feature) -> bool:
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8


def _class_names(features, key: str) -> tuple[str, ...]:
    """Those of a feature, if it is a class."""
    import tensorflow_datasets as tfds

    feature = dict(features).get(key)
    if feature is None and key != _LABEL_KEY:
        classes = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
        raise UserError(f"TFDSImages.label_key={key!r} is no feature; classes are {classes}")
    return tuple(feature.names) if isinstance(feature, tfds.features.ClassLabel) else ()


def _record_reader(builder):
    """Path of a file -> the dataset of its encoded records, in its format."""
    from tensorflow_datasets.core import file_adapters

    stored = builder.info.file_format
    if stored.value == "array_record":  # TFDS has no such dataset
        return _array_records
    return file_adapters.ADAPTER_FOR_FORMAT[stored].make_tf_data


def _array_records(path: tf.Tensor) -> tf.data.Dataset:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    def records(path: bytes):
        source = ArrayRecordDataSource([path.decode()])
        for i in range(len(source)):
            yield source[i]

    record = tf.TensorSpec([], tf.string)
    return tf.data.Dataset.from_generator(records, args=(path,), output_signature=record)
