"""Run a model over a dataset split and score it."""
