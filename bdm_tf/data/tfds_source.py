"""Any TFDS image data set, by name."""

from __future__ import annotations

import difflib
import os

import gin
import numpy as np

from bdm_tf.data.images import Images, InMemoryImages, RecordImages
from bdm_tf.data.resize import checked_size, fit_tensor
from bdm_tf.errors import UserError


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
        max_memory_gb: decoded images up to this size are held in memory, more are streamed.
    """

    def __init__(
        self,
        name: str,
        image_size=None,
        train_split: str = "train",
        eval_split: str | None = "test",
        image_key: str = "image",
        max_memory_gb: float = 4.0,
    ):
        self._name = name
        self._size = checked_size(image_size)
        self._splits = (train_split, eval_split)
        self._key = image_key
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
        builder = prepared_builder(self._name, data_dir)
        feature = dict(builder.info.features).get(self._key)
        if feature is None or len(feature.shape or ()) != 3:
            raise UserError(
                f"{self._name} has no image {self._key!r}: TFDSImages.image_key must be one of "
                f"{sorted(builder.info.features)}"
            )
        *stored, channels = feature.shape
        size = self._size or tuple(stored)
        if None in size:
            raise UserError(f"the images of {self._name} differ in size: set TFDSImages.image_size")
        shape = (*size, channels or 3)
        train_split, eval_split = self._splits
        train = self._records(builder, train_split, shape)
        evaluation = self._records(builder, eval_split, shape) if eval_split else None
        if train.num_images * float(np.prod(shape)) > self._max_bytes:
            return train, evaluation
        array = np.empty((train.num_images, *shape), np.uint8)
        batches = train.in_order().batch(500).as_numpy_iterator()
        for start, batch in zip(range(0, len(array), 500), batches):
            array[start : start + len(batch)] = batch
        return InMemoryImages(array), evaluation

    def _records(self, builder, split: str, shape) -> RecordImages:
        try:
            split_info = builder.info.splits[split]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self._name} has no split {split!r}; it has {sorted(builder.info.splits)}"
            ) from error
        features, key = builder.info.features, self._key

        def decode(record):
            return fit_tensor(features.deserialize_example(record)[key], shape[:2], shape[2])

        shards = [(i.filename, i.skip, i.take) for i in split_info.file_instructions]
        return RecordImages(shards, split_info.num_examples, shape, decode)


def prepared_builder(name: str, data_dir: str | None):
    """The TFDS builder of a data set whose files are there, fetched if need be."""
    import tensorflow_datasets as tfds

    # TFDS would ask its public bucket about every data set, for minutes where there is no network.
    tfds.core.utils.gcs_utils._is_gcs_disabled = True
    directory = os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)
    try:
        builder = _builder(tfds, name, directory)
    except (tfds.core.DatasetNotFoundError, tfds.core.registered.DatasetNotFoundError) as error:
        close = difflib.get_close_matches(name, tfds.list_builders(), 3, 0.5)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"TFDS has no data set {name!r}{hint}") from error
    except ValueError as error:
        raise UserError(f"TFDS cannot open {name!r}: {error}") from error
    if builder.info.splits:
        return builder
    try:
        if name != "digits":
            _check_network(name, directory)
        builder.download_and_prepare(file_format="tfrecord")
    except UserError:
        raise
    except Exception as error:  # whatever a download or a disk can raise
        raise UserError(_missing(name, directory, str(error))) from error
    return builder


def _builder(tfds, name: str, directory: str):
    if name == "digits":
        from bdm_tf.data.digits import Digits

        return Digits(data_dir=directory)
    family, _, config = name.partition("/")
    if family == "lsun":
        from bdm_tf.data.lsun import Lsun

        return Lsun(config=config or None, data_dir=directory)
    return tfds.builder(name, data_dir=directory)


def _check_network(name: str, directory: str) -> None:
    """Fails at once without a network, where TFDS would try again for minutes."""
    import socket

    try:
        socket.getaddrinfo("storage.googleapis.com", 443)
    except OSError as error:
        raise UserError(_missing(name, directory, f"no network ({error})")) from error


def _missing(name: str, directory: str, reason: str) -> str:
    return (
        f"the data set {name!r} is not in {directory} and could not be fetched: {reason}.\n"
        f"Run `tfds build {name} --data_dir=DIR` on a machine with a network, copy DIR here and "
        "give --data_dir=DIR."
    )
