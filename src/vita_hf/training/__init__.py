"""Training: settings, optimiser, starting points, data, checkpoints, and the loop over them."""
