"""What processes do to images, at a glance: `bdm_tf/figures.py`."""

from bdm_tf.process_figures.job import draw_to_file

__all__ = ["draw_to_file"]
