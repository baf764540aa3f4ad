"""Scores a run: python launch/evaluate.py --workdir=DIR --gin_file=gin/eval/digits.gin"""

from bdm_tf.evaluate import run

if __name__ == "__main__":
    run()
