"""Where images come from: TFDS, a folder, or a class of one's own."""

from __future__ import annotations

import inspect

from bdm_tf.data.images import Images
from bdm_tf.system.errors import UserError


def check_source(name: str, data) -> None:
    """Raises a `UserError` for a parameter that is no source of images."""
    if inspect.isclass(data) or not hasattr(data, "load"):
        shown = f"@{data.__name__}" if inspect.isclass(data) else repr(data)
        raise UserError(f"{name} = {shown} is no data source: give one like @TFDSImages()")


def load_splits(source, data_dir: str | None, on_corrupt_image: str = "stop"):
    """The training split of a source, and the evaluation split or None: `Images` both.

    Raises:
        UserError: the source's own `load` does; or returns something else.
    """
    splits = source.load(data_dir, on_corrupt_image=on_corrupt_image)
    is_pair = isinstance(splits, tuple) and len(splits) == 2
    if not is_pair or not isinstance(splits[0], Images) or not isinstance(splits[1], Images | None):
        raise UserError(
            f"{type(source).__name__}.load must return two splits, of training and of evaluation "
            "(or None): bdm_tf.data.images.InMemoryImages(array), for instance"
        )
    return splits
