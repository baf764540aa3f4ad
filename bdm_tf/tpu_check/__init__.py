"""What a TPU would make of a step, found out on a machine that has none.

Importing this package imports neither TensorFlow nor JAX.
"""
