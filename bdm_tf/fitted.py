"""What is learnt from the training images beside the weights: a workdir's prior and spectrum."""

from __future__ import annotations

import os

import tensorflow as tf

from bdm_tf.errors import UserError
from bdm_tf.files import read_npz, write_npz, writing
from bdm_tf.priors import Batches
from bdm_tf.spectrum import Spectrum, measure_spectrum, read_spectrum, write_spectrum


def prepare_prior(model, workdir: str, batches: Batches | None = None) -> None:
    """Gives a model the prior of a workdir; fits and writes it, if it is not there yet.

    Args:
        model: the model.
        workdir: where `prior.npz` is, or is to be.
        batches: see `Prior.fit`; without, the prior must be there.

    Raises:
        UserError: it is not, or cannot be read or fitted.
    """
    path = os.path.join(workdir, "prior.npz")
    if tf.io.gfile.exists(path):
        try:
            model.prior.restore(read_npz(path))
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{path} cannot be read: {error}; remove it, and training writes it anew"
            ) from error
    elif model.prior.is_fitted and batches is not None:
        print(f"fitting {type(model.prior).__name__} to the training images", flush=True)
        arrays = model.prior.fit(batches, model.process)
        with writing(path):
            write_npz(path, arrays)
        model.prior.restore(arrays)
    elif model.prior.is_fitted:
        raise UserError(f"{path} is missing: the training command writes it")


def find_spectrum(model, workdir: str, batches: Batches) -> Spectrum:
    """Gives a model the spectrum of a workdir, or measures it, if it is not there yet.

    Args:
        model: the model.
        workdir: where `spectrum.npz` may be; nothing is written.
        batches: called for a pass over the images: uint8 `[n, H, W, C]`.

    Raises:
        UserError: what is there cannot be read, or is another model's.
    """
    if spectrum := load_spectrum(model, workdir):
        return spectrum
    spectrum = measure_spectrum(batches, model.process.basis)
    model.use_spectrum(spectrum, "that of the training images")
    return spectrum


def keep_spectrum(model, workdir: str) -> None:
    """Writes a model's spectrum into a workdir, unless it is there.

    Raises:
        UserError: it cannot be written.
    """
    path = _spectrum_path(workdir)
    if not tf.io.gfile.exists(path):
        with writing(path):
            write_spectrum(path, model.spectrum, model.process.basis)


def load_spectrum(model, workdir: str) -> Spectrum | None:
    """Gives a model the spectrum of a workdir, if it has one, and returns it.

    Raises:
        UserError: it cannot be read, or is another model's.
    """
    path = _spectrum_path(workdir)
    if not tf.io.gfile.exists(path):
        return None
    spectrum = read_spectrum(path, model.process)
    model.use_spectrum(spectrum, path)
    return spectrum


def _spectrum_path(workdir: str) -> str:
    return os.path.join(workdir, "spectrum.npz")
