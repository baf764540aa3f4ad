"""Trains a model: python launch/train.py --gin_file=gin/digits.gin"""

from bdm_tf.train import run

if __name__ == "__main__":
    run()
