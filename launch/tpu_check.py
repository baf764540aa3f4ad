"""Compiles for a TPU where there is none: python launch/tpu_check.py --gin_file=gin/digits.gin

The status is 0 if the step compiles and fits into the chip's memory, else 1.
"""

from bdm_tf.tpu_check.__main__ import run

if __name__ == "__main__":
    run()
