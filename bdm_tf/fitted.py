"""What is learnt beside the weights and kept in a workdir: prior, spectrum, trust."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf

from bdm_tf import config
from bdm_tf.priors import Batches
from bdm_tf.spectrum import Spectrum, measure_spectrum, needed, read_spectrum, write_spectrum
from bdm_tf.system.errors import UserError
from bdm_tf.system.files import read_npz, write_npz, writing
from bdm_tf.trust import Trust, measure_trust


def prepare_prior(model, workdir: str, batches: Batches | None = None) -> None:
    """Gives a model its own prior, from a workdir; fits and writes it, if it is not there yet.

    Args:
        model: the model.
        workdir: where `prior.npz` is, or is to be.
        batches: see `Prior.fit`; without, the prior must be there.

    Raises:
        UserError: it is not, or cannot be read or fitted.
    """
    prior = model.own_prior
    if not prior.is_fitted:
        return
    path = os.path.join(workdir, "prior.npz")
    if tf.io.gfile.exists(path):
        try:
            prior.restore(read_npz(path))
        except (ValueError, OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{path} cannot be read: {error}; remove it, and training writes it anew"
            ) from error
    elif batches is not None:
        print(f"fitting {type(prior).__name__} to the training images", flush=True)
        arrays = prior.fit(batches, model.process)
        with writing(path):
            write_npz(path, arrays)
        prior.restore(arrays)
    else:
        raise UserError(f"{path} is missing: the training command writes it")


def needs_spectrum(model, *settings) -> bool:
    """Whether some part needs the training images' spectrum."""
    parts: list = [model.process, model.parametrisation, model.times]
    for chosen in settings:
        parts += [chosen.projection, chosen.sampler, chosen.sampler.grid]
    return any(part.needs_spectrum for part in parts)


def check_measured(model, settings) -> None:
    """Raises a `UserError` if a model lacks what it, or its sampling, needs of the images."""
    for part in (model.parametrisation, settings.sampler, settings.sampler.grid):
        if part.needs_spectrum:
            needed(model.spectrum, type(part).__name__)
    settings.projection.check(model.spectrum)


def find_spectrum(model, workdir: str, batches: Batches) -> Spectrum:
    """Gives a model the spectrum of a workdir, or measures it, if it is not there yet.

    Args:
        model: the model.
        workdir: where `spectrum.npz` may be, and the config.gin of a run that noted which one it
            began with; nothing is written.
        batches: called for a pass over the images: uint8 `[n, H, W, C]`.

    Raises:
        UserError: what is there cannot be read, or is another model's.
    """
    if tf.io.gfile.exists(begun := os.path.join(workdir, "config.gin")):
        with tf.io.gfile.GFile(begun) as file:
            noted = config.parameters(file.read()).get("Model.spectrum_sha256", "None")
        model.spectrum_sha256 = None if noted == "None" else noted.strip("'\"")
    if spectrum := load_spectrum(model, workdir):
        return spectrum
    spectrum = measure_spectrum(batches, model.process.basis)
    if not spectrum.variance.any():
        raise UserError(
            "the training images are all the same, which a recipe by their spectrum cannot learn "
            "from: give more, or add --gin_file=gin/base/blurring_diffusion.gin, which does "
            "without, and train.sample_projection = @PixelClip()"
        )
    model.use_spectrum(spectrum, "the spectrum of these images", "give it the same images again")
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
    way_out = "bring that one back, or remove this, and the training command measures it anew"
    model.use_spectrum(spectrum, path, way_out)
    return spectrum


def load_trust(model, workdir: str) -> bool:
    """Gives a model the trust of a workdir, if it has one of the model's averaged weights.

    Returns:
        Whether it has.

    Raises:
        UserError: it cannot be read.
    """
    path = _trust_path(workdir)
    if model.spectrum is None:
        return False
    model.spectrum.trust = None
    if not tf.io.gfile.exists(path):
        return False
    try:
        arrays = read_npz(path, needed=("weights", "times", "slope"))
        if str(arrays["weights"]) != weights_sha256(model):
            return False
        trust = Trust(arrays["times"], arrays["slope"])
    except (ValueError, OSError, tf.errors.OpError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; remove it, and training measures it anew"
        ) from error
    if trust.slope.shape[1:] != model.spectrum.image_shape:
        raise UserError(f"{path} is of images of another shape; remove it")
    model.spectrum.trust = trust
    return True


def prepare_trust(
    model, workdir: str, batches: Batches, labels: Callable[[int], np.ndarray] | None = None
) -> None:
    """Measures what a model's estimates are worth, unless a workdir has it of these weights.

    Args:
        model: the model, with its spectrum and averaged weights.
        workdir: where `trust.npz` is, or is to be.
        batches, labels: the training images; see `measure_trust`.

    Raises:
        UserError: it cannot be read or written.
    """
    if load_trust(model, workdir):
        return
    print("measuring how far the network's estimates can be trusted", flush=True)
    trust = measure_trust(model.denoiser(), batches, labels=labels)
    arrays = {"weights": weights_sha256(model), "times": trust.times, "slope": trust.slope}
    path = _trust_path(workdir)
    with writing(path):
        write_npz(path, arrays)
    model.spectrum.trust = trust


def weights_sha256(model) -> str:
    """What names a model's averaged weights, in hexadecimal digits."""
    return arrays_sha256(model.ema_network.trainable_variables)


def arrays_sha256(arrays: Iterable) -> str:
    """What names arrays, or variables, by what they hold, in hexadecimal digits."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.asarray(array).tobytes())
    return content.hexdigest()


def prior_sha256(variables: Mapping) -> dict[str, str]:
    """What names what a prior learnt, or begins from; nothing, if it learnt nothing."""
    learnt = [variables[name] for name in sorted(variables)]
    return {"prior_sha256": arrays_sha256(learnt)} if learnt else {}


def _trust_path(workdir: str) -> str:
    return os.path.join(workdir, "trust.npz")


def _spectrum_path(workdir: str) -> str:
    return os.path.join(workdir, "spectrum.npz")
