"""What setup.cfg cannot say: the package holds the experiments, which lie beside it in gin/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["bdm_tf*"]), "bdm_tf.gin"],
    package_dir={"bdm_tf.gin": "gin"},
    package_data={"bdm_tf.gin": ["**/*.gin"]},
)
