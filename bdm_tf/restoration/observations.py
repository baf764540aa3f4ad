"""What a blur or a smaller copy shows of an image, coefficient by coefficient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdm_tf.diffusion.bases import DCT
from bdm_tf.system.errors import UserError, check_between, check_seed, is_whole

ROUNDING = 1 / 127.5 / np.sqrt(12)  # what 8 bits leave unknown of a pixel in [-1, 1]
_NOTHING = 1e6  # a standard deviation beyond which nothing is known


@dataclass(frozen=True)
class Observation:
    """`y_j = h_j u_j + noise` for the lowest coefficients u of an image's orthonormal DCT.

    Attributes:
        image_shape: `(H, W, C)` of the image.
        gains: h, float64 `[h, w]`, above 0; `(h, w)` is the size of what is observed.
        noise: its standard deviation in pixels of [-1, 1], besides the rounding to 8 bits.
    """

    image_shape: Sequence[int]
    gains: np.ndarray
    noise: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is observed."""
        return self.gains.shape[0], self.gains.shape[1]

    def observe(self, images: np.ndarray, seed: int) -> np.ndarray:
        """Draws y of images: uint8 `[N, H, W, C]` to uint8 `[N, h, w, C]`; image i's noise is of
        (seed, i) alone.

        Raises:
            UserError: the images are of another kind or shape, or the seed is none.
        """
        check_seed("seed", seed)
        _check_images("images", images, self.image_shape)
        height, width = self.size
        u = _dct(images)[:, :height, :width]
        pixels = _inverse_dct(self.gains[..., None] * u)
        for number, image in enumerate(pixels):
            image += self.noise * np.random.default_rng((seed, number)).normal(size=image.shape)
        return np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8)

    def known(self, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `Known` takes, of observed images.

        Args:
            observed: uint8 `[N, h, w, C]`.

        Returns:
            Values `y_j / h_j` and variances `tau_j^2 = (noise^2 + rounding^2) / h_j^2`, infinite
            where that is more than 10^6 squared; both float32 `[N, H, W, C]`.

        Raises:
            UserError: the images are of another kind or shape.
        """
        height, width = self.size
        _check_images("observed", observed, (height, width, self.image_shape[2]))
        shape = (len(observed), *self.image_shape)
        tau = np.hypot(self.noise, ROUNDING) / self.gains
        seen = (tau < _NOTHING)[..., None]
        values, variance = np.zeros(shape), np.full(shape, np.inf)
        values[:, :height, :width] = np.where(seen, _dct(observed) / self.gains[..., None], 0.0)
        variance[:, :height, :width] = np.where(seen, tau[..., None] ** 2, np.inf)
        return values.astype(np.float32), variance.astype(np.float32)

    def known_part(self, observed: np.ndarray) -> np.ndarray:
        """What is known as pixels, uint8 `[N, H, W, C]`: values, each times `1 / (1 + tau^2)`."""
        values, variance = self.known(observed)
        pixels = _inverse_dct(values / (1.0 + np.float64(variance)))
        return np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8)


def _check_images(name: str, images: np.ndarray, shape: Sequence[int]) -> None:
    kind, there = getattr(images, "dtype", type(images).__name__), tuple(np.shape(images))
    if kind != np.uint8 or len(there) != 4 or there[1:] != tuple(shape):
        raise UserError(f"{name} are {kind} {there}, must be uint8 of shape (N, *{tuple(shape)})")


def blurred(image_shape: Sequence[int], sigma_blur: float, noise: float = 0.0) -> Observation:
    """A Gaussian blur as the process's own: `h = exp(-lambda sigma_blur^2 / 2)`.

    Args:
        image_shape: `(H, W, C)`.
        sigma_blur: its standard deviation in pixels, above 0.
        noise: in pixels of [-1, 1], at least 0.

    Raises:
        UserError: a number is out of range.
    """
    check_between("--sigma_blur", sigma_blur, 0, 1e3, without_low=True)
    check_between("--noise", noise, 0, 10)
    squared = DCT().frequencies_squared(*image_shape[:2]).numpy()[..., 0].astype(np.float64)
    exponent = np.minimum(squared * sigma_blur**2 / 2, 300.0)  # h stays above 0
    return Observation(image_shape, np.exp(-exponent), noise)


def shrunk(image_shape: Sequence[int], factor: int, noise: float = 0.0) -> Observation:
    """A copy of 1/factor the size that has the lowest coefficients: `h = 1 / factor`.

    A small image's pixels keep their brightness, and so its orthonormal DCT is that of the large
    one over the factor.

    Args:
        image_shape: `(H, W, C)`.
        factor: divides H and W, at least 2.
        noise: in pixels of [-1, 1], at least 0.

    Raises:
        UserError: a number is out of range, or the factor does not divide the sides.
    """
    if not is_whole(factor) or factor < 2:
        raise UserError(f"--factor={factor!r} must be a whole number, at least 2")
    check_between("--noise", noise, 0, 10)
    height, width = image_shape[:2]
    if height % factor or width % factor:
        raise UserError(
            f"--factor={factor} does not divide the model's images of {height}x{width} pixels"
        )
    return Observation(image_shape, np.full((height // factor, width // factor), 1 / factor), noise)


def _dct(images: np.ndarray) -> np.ndarray:
    """The orthonormal DCT of uint8 images, as in [-1, 1], in float64."""
    rows, columns = DCT().inverse_matrices(*images.shape[1:3])
    x = images / 127.5 - 1.0
    return np.einsum("ih,nhwc,jw->nijc", rows, x, columns, optimize=True)


def _inverse_dct(u: np.ndarray) -> np.ndarray:
    rows, columns = DCT().matrices(*u.shape[1:3])
    return np.einsum("hi,nijc,wj->nhwc", rows, u, columns, optimize=True)
