"""Draws images: python launch/sample.py --saved_model=DIR --output=grid.png"""

from bdm_tf.sample import run

if __name__ == "__main__":
    run()
