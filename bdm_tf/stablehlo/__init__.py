"""Steps of TensorFlow as StableHLO, which runs and compiles without TensorFlow.

Importing this package imports neither TensorFlow nor JAX.
"""
