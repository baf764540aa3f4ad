"""Shows what processes do: python launch/figures.py --gin_file=gin/digits.gin --output=f.png"""

from bdm_tf.figures import run

if __name__ == "__main__":
    run()
