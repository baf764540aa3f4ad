"""LSUN as TFDS lays it out, read with the `lmdb` package.

TFDS reads LSUN's databases through tensorflow_io, whose last release is older than current
TensorFlow. Name, version and files on disk are those of TFDS.
"""

from __future__ import annotations

import importlib.util
import io
import os

from PIL import Image
from tensorflow_datasets.image import lsun

from bdm_tf.system.errors import UserError


# Not registered: TFDS's own class has the name.
class Lsun(lsun.Lsun, skip_registration=True):  # type: ignore[call-arg]
    """`lsun/church_outdoor` and the other LSUN categories."""

    url_infos = lsun.Lsun.url_infos  # sizes and checksums of the downloads

    def _split_generators(self, dl_manager):
        if importlib.util.find_spec("lmdb") is None:  # said before gigabytes are fetched
            raise UserError("preparing LSUN needs lmdb: pip install lmdb")
        return super()._split_generators(dl_manager)

    def _generate_examples(self, extracted_dir, file_path):
        import lmdb

        path = os.path.join(extracted_dir, file_path)
        with lmdb.open(path, readonly=True, lock=False, readahead=False) as database:
            with database.begin() as transaction:
                for i, (key, value) in enumerate(transaction.cursor()):
                    yield i, {"id": bytes(key).decode("utf-8"), "image": _decodable(value)}


def _decodable(content: bytes) -> io.BytesIO:
    """An encoded image as it is if JPEG, else (LSUN's tools speak of WebP) as PNG, without loss.

    TensorFlow's `decode_image` takes WebP for an animation (or not at all, in older releases).
    """
    if content.startswith(b"\xff\xd8"):
        return io.BytesIO(content)
    encoded = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(encoded, "PNG")
    return io.BytesIO(encoded.getvalue())
