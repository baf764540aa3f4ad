"""TFDS's builders, and their data: found where they are, or prepared."""

from __future__ import annotations

import difflib
import importlib
import os

import tensorflow as tf

from bdm_tf.system.errors import UserError
from bdm_tf.system.interrupts import cleaning_up
from bdm_tf.system.paths import check_home, expanded

# What the file formats of TFDS that are not TFRecord are read with.
_FORMAT_MODULES = {
    "array_record": "array_record.python.array_record_data_source",
    "parquet": "pyarrow.parquet",
    "riegeli": "riegeli.tensorflow.ops.riegeli_dataset_ops",
}


def imported_tfds():
    """tensorflow_datasets, which would ask its public bucket about every data set: for minutes
    where there is no network, and with a temporary folder that it leaves behind.
    """
    import tensorflow_datasets as tfds

    tfds.core.utils.gcs_utils._is_gcs_disabled = True
    tfds.core.DatasetInfo.initialize_from_bucket = lambda info: None
    return tfds


def prepared_builder(name: str, data_dir: str | None):
    """The TFDS builder of a data set whose files are there, fetched if need be."""
    tfds = imported_tfds()
    if not data_dir and not os.environ.get("TFDS_DATA_DIR"):
        check_home("--data_dir")
    directory = expanded("data_dir", data_dir or tfds.core.constants.DATA_DIR)
    builder = known_builder(tfds, name, directory)
    if builder.info.splits:
        _check_format(name, builder)
        return builder
    there = str(builder.data_dir)
    if tf.io.gfile.exists(there) and "dataset_info.json" not in tf.io.gfile.listdir(there):
        raise UserError(
            f"{there} lacks dataset_info.json: bring it back, or remove the folder to "
            "have the data set prepared anew"
        )
    try:
        if name == "digits":
            tfds.disable_progress_bar()  # it takes a moment
        else:
            _check_network(name, directory)
        _say_where(name, directory, is_given=bool(data_dir))
        with cleaning_up():
            builder.download_and_prepare(file_format="tfrecord")
    except UserError:
        raise
    except Exception as error:  # whatever a download or a disk can raise
        raise UserError(_missing(name, directory, str(error))) from error
    return builder


def _say_where(name: str, directory: str, is_given: bool) -> None:
    """Says where a data set is about to be prepared, which may be no folder of TFDS's but a slip.

    Raises:
        UserError: it is a file, or not even the folder around a given one is there.
    """
    around = os.path.dirname(os.path.abspath(directory))
    if is_given and "://" not in directory and not os.path.isdir(around):
        raise UserError(f"--data_dir={directory}: {around} is not there; make it, if it is meant")
    if tf.io.gfile.exists(directory) and not tf.io.gfile.isdir(directory):
        raise UserError(f"--data_dir={directory} is a file: give a folder")
    made = "" if tf.io.gfile.isdir(directory) else ", a folder that is made now"
    print(f"preparing the data set {name!r} in {directory}{made}", flush=True)


def _check_format(name: str, builder) -> None:
    """Fails for files whose format cannot be read here."""
    stored = builder.info.file_format.value
    try:
        importlib.import_module(_FORMAT_MODULES.get(stored, "tensorflow"))
    except ImportError as error:
        raise UserError(
            f"{builder.data_dir} is stored as {stored}, which cannot be read here ({error}).\n"
            f"Install what reads it, or run `{_build_command(name)}` with another folder for DIR "
            "and give --data_dir=DIR."
        ) from error


def known_builder(tfds, name: str, directory: str):
    """The TFDS builder of a data set, whether or not its files are in a folder.

    Raises:
        UserError: there is no such data set, or what is there is damaged.
    """
    folder = os.path.join(directory, name.partition(":")[0])
    try:
        return _builder(tfds, name, directory)
    except (tfds.core.DatasetNotFoundError, tfds.core.registered.DatasetNotFoundError) as error:
        if ":" in name:
            raise UserError(f"TFDS has no {name!r}: give another version, or none") from error
        close = difflib.get_close_matches(name, tfds.list_builders(), 3, 0.75)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"TFDS has no data set {name!r}{hint}{_if_damaged(folder)}") from error
    except UserError:
        raise
    except Exception as error:  # whatever it makes of an unknown version, or of damaged files
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(f"TFDS cannot open {name!r}: {reason}{_if_damaged(folder)}") from error


def _if_damaged(folder: str) -> str:
    if not tf.io.gfile.isdir(folder):
        return ""
    return (
        f"; if dataset_info.json or features.json in {folder} is damaged, bring it back, or remove "
        "the folder to have the data set prepared anew"
    )


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
    import urllib.request

    if {"http", "https"} & urllib.request.getproxies().keys():
        return  # names are resolved behind the proxy
    try:
        socket.getaddrinfo("storage.googleapis.com", 443)
    except OSError as error:
        raise UserError(_missing(name, directory, f"no network ({error})")) from error


def _build_command(name: str) -> str:
    """What prepares a data set as TFRecord; TFDS's own command needs apache_beam."""
    call = f"import bdm_tf.data.tfds_builders as b; b.prepared_builder('{name}', 'DIR')"
    return f'python -c "{call}"'


def _missing(name: str, directory: str, reason: str) -> str:
    return (
        f"the data set {name!r} is not in {directory} and could not be fetched: {reason}.\n"
        f"Run `{_build_command(name)}` on a machine with a network, copy DIR here and give "
        "--data_dir=DIR."
    )
