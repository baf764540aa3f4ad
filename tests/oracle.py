"""Appendix A.1 and Eq. 15-18 in float64 NumPy, written from the paper."""

import numpy as np


def dct_matrix(n):
    """The orthonormal DCT-II as a matrix: `u = dct_matrix(n) @ x`."""
    k, i = np.arange(n)[:, None], np.arange(n)[None, :]
    matrix = np.sqrt(2.0 / n) * np.cos(np.pi * (2 * i + 1) * k / (2 * n))
    matrix[0] /= np.sqrt(2.0)
    return matrix


def to_frequency(x):
    """V^T x for images `[B, H, W, C]`."""
    rows, columns = dct_matrix(x.shape[1]), dct_matrix(x.shape[2])
    return np.einsum("ih,jw,bhwc->bijc", rows, columns, x)


def to_pixel(u):
    rows, columns = dct_matrix(u.shape[1]), dct_matrix(u.shape[2])
    return np.einsum("ih,jw,bijc->bhwc", rows, columns, u)


def noise_scaling_cosine(t, logsnr_min=-10.0, logsnr_max=10.0):
    limit_max = np.arctan(np.exp(-0.5 * logsnr_max))
    limit_min = np.arctan(np.exp(-0.5 * logsnr_min)) - limit_max
    logsnr = -2.0 * np.log(np.tan(limit_min * t + limit_max))
    return np.sqrt(1.0 / (1.0 + np.exp(-logsnr))), np.sqrt(1.0 / (1.0 + np.exp(logsnr)))


def frequency_scaling(t, height, width, sigma_blur_max, min_scale=0.001, power=2):
    """d_t as `[B, H, W, 1]` for t `[B]`; sigma_B^2 / 2 where A.1 misprints sigma_t^2 / 2."""
    t = np.asarray(t, np.float64)[:, None, None, None]
    dissipation_time = (sigma_blur_max * np.sin(t * np.pi / 2) ** power) ** 2 / 2
    rows = (np.pi * np.arange(height) / height)[None, :, None, None]
    columns = (np.pi * np.arange(width) / width)[None, None, :, None]
    scaling = np.exp(-(rows**2 + columns**2) * dissipation_time)
    return scaling * (1 - min_scale) + min_scale


def alpha_sigma(t, height, width, sigma_blur_max, **blur):
    t = np.asarray(t, np.float64)
    a, sigma = (v[:, None, None, None] for v in noise_scaling_cosine(t))
    return a * frequency_scaling(t, height, width, sigma_blur_max, **blur), sigma


def denoising_distribution(s, t, *shape, **blur):
    """Eq. 17 and 18: the coefficients of u_t and u_x, and the variance."""
    alpha_s, sigma_s = alpha_sigma(s, *shape, **blur)
    alpha_t, sigma_t = alpha_sigma(t, *shape, **blur)
    alpha_ts = alpha_t / alpha_s
    sigma2_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    sigma2 = 1.0 / (1.0 / sigma_s**2 + alpha_ts**2 / sigma2_ts)
    return sigma2 * alpha_ts / sigma2_ts, sigma2 * alpha_s / sigma_s**2, sigma2


def appendix_coefficients(s, t, *shape, delta=1e-8):
    """A.1's coeff_term1, coeff_term2 and sigma2_denoise, to the letter."""
    alpha_s, sigma_s = alpha_sigma(s, *shape)
    alpha_t, sigma_t = alpha_sigma(t, *shape)
    alpha_ts = alpha_t / alpha_s
    sigma2_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    precision_s = 1 / np.maximum(sigma_s**2, delta)
    precision_t = 1 / np.maximum(sigma_t**2 / alpha_ts**2 - sigma_s**2, delta)
    sigma2 = 1 / np.maximum(precision_s + precision_t, delta)
    return alpha_ts * sigma2 / (sigma2_ts + delta), sigma2 * precision_s / alpha_ts, sigma2
