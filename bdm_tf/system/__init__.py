"""What files and processes need: errors, paths, locks, checkpoints, signals, workers."""
