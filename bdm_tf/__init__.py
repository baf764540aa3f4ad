"""Blurring Diffusion Models (Hoogeboom & Salimans, 2022) in TensorFlow and Keras."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever other programs use

__version__ = "0.1.0"
