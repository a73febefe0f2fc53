"""Training: options, data, starting weights, loop, checkpoints and the finished model; `run.train` connects them."""
