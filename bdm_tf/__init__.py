"""Blurring Diffusion Models (Hoogeboom & Salimans, 2022) in TensorFlow and Keras."""

__version__ = "0.1.0"
