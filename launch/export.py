"""Exports a checkpoint: python launch/export.py --workdir=DIR --export_dir=DIR

With --gin_file=gin/sampling/fast.gin or --gin_param it is to be sampled otherwise than the run is.
"""

from bdm_tf.export import run

if __name__ == "__main__":
    run()
