"""Training: strategy, state, checkpoints, the step, the loop."""
