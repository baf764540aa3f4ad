"""Processes drawn: the paper's Figures 1 and 2 for any of them, and log SNR. No files, no gin."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bdm_tf.data.pipeline import to_uint8, to_unit_range
from bdm_tf.diffusion.process import BlurringProcess
from bdm_tf.system.files import MARK

_DPI = 150
_CELL = 112  # dots that the longer side of an image has, about
_GAP, _GROUP_GAP = 6, 18  # dots between images, and between the rows of two models
_MARGIN = 6  # dots
_SMALLEST = -3.0  # log10 |u_t|; what is below is drawn as this
_LOWEST_LOG_SNR = -30.0
_CURVES = 16
_PANELS_A_ROW = 5


def diffused(
    process: BlurringProcess, images: np.ndarray, times: np.ndarray, white: np.ndarray
) -> np.ndarray:
    """Draws of q(z_t | x) with the same noise at all times (Eq. 24, 28).

    Args:
        process: the process.
        images: uint8 `[N, H, W, C]`.
        times: `[T]` in [0, 1].
        white: standard normal noise `[N, H, W, C]`.

    Returns:
        z_t `[N, T, H, W, C]`, not clipped.
    """
    count, columns = len(images), len(times)
    x = tf.repeat(to_unit_range(images), columns, axis=0)
    eps = tf.repeat(process.basis.noise(tf.constant(white, tf.float32)), columns, axis=0)
    t = tf.tile(tf.constant(times, tf.float32), [count])
    return process.diffuse(x, t, eps).numpy().reshape(count, columns, *images.shape[1:])


def log_magnitudes(process: BlurringProcess, z: np.ndarray) -> np.ndarray:
    """log10 of |u_t| = |V^T z_t|, averaged over channels before the logarithm.

    Args:
        process: the process.
        z: `[N, T, H, W, C]`.

    Returns:
        `[N, T, H, W]`, the lowest frequency at `[..., 0, 0]`; -inf where u_t is 0.
    """
    u = process.basis.to_frequency(tf.reshape(z, [-1, *z.shape[2:]])).numpy()
    with np.errstate(divide="ignore"):
        return np.log10(np.abs(u).mean(axis=-1)).reshape(z.shape[:-1])


def log_snr(process: BlurringProcess, times: np.ndarray) -> np.ndarray:
    """log(alpha_t^2 / sigma_t^2) of each frequency; log(alpha_t^2), if there is no noise.

    Returns:
        `[T, H, W]` for times `[T]`, finite also where alpha_t itself underflows.
    """
    times = np.asarray(times, np.float32)
    alpha, sigma = (v.numpy().astype(np.float64) for v in process.alpha_sigma([0.0]))
    start = 2.0 * np.log(alpha if process.is_deterministic else alpha / sigma)
    change = process.logsnr_difference(np.zeros_like(times), times)
    height, width, _ = process.image_shape
    return np.broadcast_to(start + change.numpy(), [len(times), height, width, 1])[..., 0]


def draw_process(
    names: Sequence[str],
    processes: Sequence[BlurringProcess],
    images: np.ndarray,
    times: np.ndarray,
    white: np.ndarray,
) -> Figure:
    """Figure 1: z_t over t, a row for each process and image; see `diffused`."""
    groups = [to_uint8(diffused(process, images, times, white)).numpy() for process in processes]
    labels = [[name, *[""] * (len(images) - 1)] for name in _labels(names)]
    return _film(groups, labels, times)


def draw_spaces(
    names: Sequence[str],
    processes: Sequence[BlurringProcess],
    images: np.ndarray,
    times: np.ndarray,
    white: np.ndarray,
) -> Figure:
    """Figure 2: rows of z_t, and below each its log10 |u_t|, the lowest frequency top left."""
    largest = 0.5 * np.log10(np.prod(images.shape[1:3]))  # a white image has it, at frequency 0
    scale = ScalarMappable(Normalize(_SMALLEST, largest), "magma")
    groups = []
    for process in processes:
        z = diffused(process, images, times, white)
        u = scale.to_rgba(np.maximum(log_magnitudes(process, z), _SMALLEST), bytes=True)
        pairs = np.stack([_rgb(to_uint8(z).numpy()), u[..., :3]], axis=1)
        groups.append(pairs.reshape(-1, *pairs.shape[2:]))
    rows = ["$z_t$", "$u_t$"] * len(images)
    figure = _film(groups, [[f"{name}\n{rows[0]}", *rows[1:]] for name in _labels(names)], times)
    width, height = figure.get_size_inches() * _DPI
    bar_height = min(1.0, 4 * _CELL / height)
    bar = figure.add_axes((1 + 20 / width, 1 - bar_height, 16 / width, bar_height))
    figure.colorbar(scale, cax=bar, label=r"$\log_{10} |u_t|$", extend="min")
    return figure


def draw_snr(names: Sequence[str], processes: Sequence[BlurringProcess]) -> Figure:
    """log SNR over t, a panel for each process and a curve for each of some frequencies.

    A process without noise has no SNR; its panel says that it shows `log alpha_t^2` instead.
    """
    times = np.linspace(0.0, 1.0, 401)
    snr = [log_snr(process, times).reshape(len(times), -1) for process in processes]
    frequencies = [_frequencies(process) for process in processes]
    highest = np.max(np.concatenate(frequencies))
    scale = ScalarMappable(PowerNorm(0.5, 0.0, highest), "viridis")
    rows = math.ceil(len(processes) / _PANELS_A_ROW)
    columns = math.ceil(len(processes) / rows)
    figure = Figure((1.2 + 2.0 * columns, 0.3 + 2.6 * rows), dpi=_DPI, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    low = max(_LOWEST_LOG_SNR, min(curves.min() for curves in snr))
    high = max(curves.max() for curves in snr)
    for panel, process, title, curves, frequency in zip(
        panels.flat, processes, _labels(names), snr, frequencies
    ):
        for place in _spread(frequency)[::-1]:
            color = scale.to_rgba(frequency[place])
            panel.plot(times, curves[:, place], color=color, linewidth=1.2)
        if process.is_deterministic:
            title += "\n" + r"(no noise: $\log\,\alpha_t^2$)"
        if np.ptp(curves, axis=1).max() < 1e-3:
            title += "\n(all frequencies alike)"
        panel.set_title(title, fontsize=9)
        panel.set(xlim=(0.0, 1.0), ylim=(low - 1.0, high + 1.0))
        panel.grid(alpha=0.3)
    for panel in panels.flat[len(processes) :]:
        panel.remove()
    figure.supxlabel("t", fontsize=9)
    figure.supylabel(r"$\log\,\alpha_t^2 / \sigma_t^2$", fontsize=9)
    bar = figure.colorbar(scale, ax=figure.axes, pad=0.01, aspect=25)
    bar.set_label(r"frequency $\sqrt{\lambda}$, radians per pixel", fontsize=9)
    return figure


def encoded(figure: Figure, extension: str) -> bytes:
    """The bytes of a file, without margins; `extension` is png, pdf or svg."""
    figure.draw_without_rendering()  # places what the bounds are of
    low, high = np.split(figure.get_tightbbox().extents * _DPI, 2)
    # Whole dots: pixels of images begin and end with dots then.
    bounds = Bbox(np.stack([np.floor(low) - _MARGIN, np.ceil(high) + _MARGIN]) / _DPI)
    content = io.BytesIO()
    program = {"png": "Software", "pdf": "Producer", "svg": "Creator"}[extension]
    figure.savefig(
        content, format=extension, dpi=_DPI, bbox_inches=bounds, metadata={program: MARK}
    )
    return content.getvalue()


def _film(
    groups: Sequence[np.ndarray], labels: Sequence[Sequence[str]], times: np.ndarray
) -> Figure:
    """Rows of images on white, with t above and labels on the left.

    Args:
        groups: uint8 `[R, T, H, W, C]` each; R rows that belong together.
        labels: R for each group.
        times: `[T]`.
    """
    height, width = groups[0].shape[2:4]
    factor = max(1, round(_CELL / max(height, width)))  # whole dots a pixel, or some look wider
    height, width = factor * height, factor * width
    strips, centres, top = [], [], 0
    for group in groups:
        for row in _rgb(group):
            row = row.repeat(factor, axis=1).repeat(factor, axis=2)
            padded = np.pad(row, [(0, 0), (0, _GAP), (0, _GAP), (0, 0)], constant_values=255)
            strips.append(np.concatenate(padded, axis=1))
            centres.append(top + (height - 1) / 2)
            top += height + _GAP
        if len(group) > 1:
            strips.append(np.full_like(strips[-1][: _GROUP_GAP - _GAP], 255))
            top += _GROUP_GAP - _GAP
    spare = _GROUP_GAP if len(groups[-1]) > 1 else _GAP
    canvas = np.concatenate(strips)[:-spare, :-_GAP]
    figure = Figure((canvas.shape[1] / _DPI, canvas.shape[0] / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas, interpolation="none", aspect="auto")
    columns = np.arange(len(times)) * (width + _GAP) + (width - 1) / 2
    axes.set_xticks(columns, [f"t = {t:.2g}" for t in times], fontsize=8)
    axes.set_yticks(centres, [label for names in labels for label in names], fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    return figure


def _rgb(images: np.ndarray) -> np.ndarray:
    """`[..., C]` as `[..., 3]`: the first three channels, or the first one three times."""
    return images[..., :3] if images.shape[-1] >= 3 else images[..., :1].repeat(3, axis=-1)


def _labels(names: Sequence[str]) -> list[str]:
    """Names without the folder that all of them share, broken where gin files are joined."""
    folders = {name.partition("-")[0] for name in names}
    if len(names) > 1 and len(folders) == 1 and all("-" in name for name in names):
        names = [name.partition("-")[2] for name in names]
    readable = str.maketrans({"+": "\n+ ", "_": " ", "$": r"\$"})  # $ would begin a formula
    return [name.translate(readable) for name in names]


def _frequencies(process: BlurringProcess) -> np.ndarray:
    """sqrt(lambda) `[H W]`, in radians per pixel."""
    height, width, _ = process.image_shape
    return np.sqrt(process.basis.frequencies_squared(height, width).numpy()).ravel()


def _spread(frequencies: np.ndarray) -> np.ndarray:
    """Places of some frequencies from the lowest to the highest, denser among the low ones."""
    values, places = np.unique(frequencies, return_index=True)
    wanted = values[-1] * np.linspace(0.0, 1.0, _CURVES) ** 2
    return places[np.unique(np.searchsorted(values, wanted))]
