"""Priors learnt from training images: their blurred selves, or Gaussians fitted to these."""

from __future__ import annotations

from collections.abc import Iterable

import gin
import numpy as np
import tensorflow as tf

from bdm_tf.data.pipeline import to_unit_range
from bdm_tf.noise import PRIOR, WITHIN, choices, normal
from bdm_tf.priors import Batches, Prior
from bdm_tf.system.errors import UserError, check_between, check_counts, check_seed

_LARGEST_ARRAY = 2**27  # numbers: half a GiB of float32
_MOST_DIMENSIONS = 4096  # of a Gaussian with a full covariance


class _Faded(Prior):
    """Coefficients `alpha_1 u_x` of the training images, where they can be seen, plus noise.

    Args:
        noise: its standard deviation; None is the process's own sigma_1.
        tolerance: coefficients whose root mean square over the images is smaller (in images of
            [-1, 1]) are left out.
        num_images: at most so many images are used, drawn at random; None for all.
        seed: by which they are drawn.
    """

    def __init__(
        self, noise: float | None, tolerance: float, num_images: int | None, seed: int = 0
    ):
        super().__init__()
        owner = type(self).__name__
        if noise is not None:
            check_between(f"{owner}.noise", noise, 0, 1e6)
        check_between(f"{owner}.tolerance", tolerance, 0)
        if num_images is not None:
            check_counts(owner, 1, num_images=num_images)
        self._noise, self._tolerance, self._num_images = noise, tolerance, num_images
        self._seed = seed

    def _coefficients(self, batches: Batches, process) -> tuple[np.ndarray, np.ndarray]:
        """The places that are kept, int32 `[D]`, and what is there, float32 `[N, D]`."""
        squares, count = np.zeros(process.image_shape), 0
        drawn = self._drawn(batches)
        for u in self._faded(drawn, process):
            squares += np.square(u, dtype=np.float64).sum(0)
            count += len(u)
        kept = np.flatnonzero(np.sqrt(squares / count) > self._tolerance).astype(np.int32)
        if not len(kept):
            raise UserError(
                f"{type(self).__name__}.tolerance={self._tolerance} leaves no coefficient: lower it"
            )
        if count * len(kept) > _LARGEST_ARRAY:
            raise UserError(
                f"{type(self).__name__} would keep {len(kept)} coefficients of {count} images: "
                f"blur more, or set {type(self).__name__}.num_images or .tolerance"
            )
        rows = [u.reshape(len(u), -1)[:, kept] for u in self._faded(drawn, process)]
        return kept, np.concatenate(rows)

    def _drawn(self, batches: Batches) -> Batches:
        """Batches of `num_images` of the images: not the first, as they may be sorted by class."""
        count = sum(map(len, batches())) if self._num_images is not None else 0
        if self._num_images is None or count <= self._num_images:
            return batches
        is_drawn = np.zeros(count, bool)
        is_drawn[np.random.default_rng(self._seed).permutation(count)[: self._num_images]] = True

        def drawn() -> Iterable[np.ndarray]:
            first = 0
            for images in batches():
                yield images[is_drawn[first : first + len(images)]]
                first += len(images)

        return drawn

    def _faded(self, batches: Batches, process) -> Iterable[np.ndarray]:
        alpha, _ = process.alpha_sigma([1.0])
        for images in batches():
            if len(images):
                yield (alpha * process.basis.to_frequency(to_unit_range(images))).numpy()

    def _place(self, process, values: tf.Tensor, seeds: tf.Tensor, image_shape) -> tf.Tensor:
        """z_1 from the kept coefficients `[B, D]`."""
        size = int(np.prod(image_shape))
        kept = self.variables["kept"]
        placed = tf.scatter_nd(kept[:, None], tf.transpose(values), [size, values.shape[0]])
        u = tf.reshape(tf.transpose(placed), [-1, *image_shape])
        noise = self._sigma(process) * normal(seeds, PRIOR, image_shape)
        return process.basis.to_pixel(u + noise)

    def _sigma(self, process) -> tf.Tensor:
        return (
            process.alpha_sigma([1.0])[1]
            if self._noise is None
            else tf.constant(self._noise, tf.float32)
        )

    def _check_fitted(self) -> None:
        if not self.variables:
            raise UserError(f"{type(self).__name__} has not been fitted to images yet")


@gin.register
class BlurredImages(_Faded):
    """Training images, blurred as at t = 1, plus noise: IHDM's prior.

    Args:
        noise: standard deviation for images in [-1, 1]; None is sigma_1.
        tolerance: coefficients with a smaller root mean square are left out.
        num_images: at most so many images are used, drawn at random; None for all. Which ones
            depends on their order alone.
    """

    learnt = ("kept", "images")

    def __init__(
        self,
        noise: float | None = None,
        tolerance: float = 1e-3,
        num_images: int | None = None,
    ):
        super().__init__(noise, tolerance, num_images)

    def fit(self, batches, process):
        kept, values = self._coefficients(batches, process)
        return {"kept": kept, "images": values}

    def draw(self, process, seeds, image_shape):
        self._check_fitted()
        images = self.variables["images"]
        row = choices(seeds, tf.ones([images.shape[0]]))
        return self._place(process, tf.gather(images, row), seeds, image_shape)


@gin.register
class GaussianPrior(_Faded):
    """A Gaussian, or a mixture of some, fitted to the blurred training images, plus noise.

    Args:
        num_components: Gaussians in the mixture, each with a full covariance.
        noise: standard deviation for images in [-1, 1]; None is sigma_1.
        tolerance: coefficients with a smaller root mean square are left out.
        num_images: at most so many images are used, drawn at random; None for all.
        seed: of that, and of the mixture's fit.
    """

    learnt = ("kept", "weights", "means", "factors")

    def __init__(
        self,
        num_components: int = 1,
        noise: float | None = None,
        tolerance: float = 1e-3,
        num_images: int | None = None,
        seed: int = 0,
    ):
        check_counts("GaussianPrior", 1, num_components=num_components)
        check_seed("GaussianPrior.seed", seed)
        super().__init__(noise, tolerance, num_images, seed)
        self._num_components = num_components
        self.has_divergence = num_components == 1 and noise != 0

    def fit(self, batches, process):
        kept, values = self._coefficients(batches, process)
        if len(kept) > _MOST_DIMENSIONS:
            raise UserError(
                f"GaussianPrior would need a covariance of {len(kept)} coefficients (at most "
                f"{_MOST_DIMENSIONS}): blur more, or set GaussianPrior.tolerance"
            )
        weights, means, covariances = self._fitted(values.astype(np.float64))
        eigenvalues, vectors = np.linalg.eigh(covariances)
        # A root of the covariance, also where there are fewer images than dimensions.
        factors = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))[:, None, :]
        arrays = {"weights": weights, "means": means, "factors": factors}
        return {"kept": kept} | {k: v.astype(np.float32) for k, v in arrays.items()}

    def _fitted(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(values) <= self._num_components:
            raise UserError(
                f"GaussianPrior.num_components={self._num_components} needs more images than "
                f"the {len(values)} that there are"
            )
        if self._num_components == 1:
            covariance = np.cov(values, rowvar=False, bias=True)
            return np.ones(1), values.mean(0)[None], np.atleast_2d(covariance)[None]
        from sklearn.mixture import GaussianMixture  # takes a second to import

        mixture = GaussianMixture(self._num_components, random_state=self._seed).fit(values)
        return mixture.weights_, mixture.means_, mixture.covariances_

    def draw(self, process, seeds, image_shape):
        self._check_fitted()
        found = self.variables
        means, factors = found["means"], found["factors"]
        which = choices(seeds, found["weights"])
        white = normal(seeds, WITHIN, means.shape[1:])
        values = tf.gather(means, which) + tf.linalg.matvec(tf.gather(factors, which), white)
        return self._place(process, values, seeds, image_shape)

    def divergence(self, process, u_x):
        self._check_fitted()
        alpha, sigma = process.alpha_sigma([1.0])
        shape = [1, *process.image_shape]

        def flat(values):  # in float64, as covariances are badly conditioned
            return tf.cast(tf.reshape(values, [-1, int(np.prod(shape))]), tf.float64)

        u_1 = flat(alpha * u_x)
        q, p = (flat(tf.broadcast_to(v**2, shape))[0] for v in (sigma, self._sigma(process)))
        rest = 0.5 * ((q + u_1**2) / p - 1.0 + tf.math.log(p / q))
        kept = self.variables["kept"]
        seen = tf.scatter_nd(kept[:, None], tf.ones_like(kept), tf.shape(q))
        rest = tf.reduce_sum(tf.where(seen > 0, tf.zeros_like(rest), rest), axis=1)
        factor = tf.cast(self.variables["factors"][0], tf.float64)
        covariance = tf.matmul(factor, factor, transpose_b=True)
        root = tf.linalg.cholesky(covariance + tf.linalg.diag(tf.gather(p, kept)))
        q = tf.gather(q, kept)
        mean = tf.cast(self.variables["means"][0], tf.float64)
        away = tf.linalg.triangular_solve(root, tf.transpose(tf.gather(u_1, kept, axis=1) - mean))
        spread = tf.linalg.triangular_solve(root, tf.linalg.diag(tf.sqrt(q)))
        logdet = 2.0 * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))
        constant = tf.reduce_sum(spread**2) + logdet - tf.reduce_sum(tf.math.log(q) + 1.0)
        return tf.cast(rest + 0.5 * (tf.reduce_sum(away**2, axis=0) + constant), tf.float32)
