"""Run a model over a video."""
