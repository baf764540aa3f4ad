"""Restores images: python launch/restore.py --saved_model=DIR --task=deblur --sigma_blur=1.5 ..."""

from bdm_tf.restore import run

if __name__ == "__main__":
    run()
