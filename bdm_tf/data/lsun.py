"""LSUN as TFDS lays it out, read with the `lmdb` package.

TFDS reads LSUN's databases through tensorflow_io, whose last release is older than current
TensorFlow. Name, version and files on disk are those of TFDS.
"""

from __future__ import annotations

import io
import os

from tensorflow_datasets.image import lsun

from bdm_tf.errors import UserError


class Lsun(lsun.Lsun):
    """`lsun/church_outdoor` and the other LSUN categories."""

    def _generate_examples(self, extracted_dir, file_path):
        try:
            import lmdb
        except ImportError as error:
            raise UserError('preparing LSUN needs lmdb: pip install -e ".[lsun]"') from error
        path = os.path.join(extracted_dir, file_path)
        with lmdb.open(path, readonly=True, lock=False, readahead=False) as database:
            with database.begin() as transaction:
                for i, (key, value) in enumerate(transaction.cursor()):
                    yield i, {"id": bytes(key).decode("utf-8"), "image": io.BytesIO(value)}
