"""The result of a segmentation: `instances.VideoInstances`, built from a model's outputs and drawn over its video."""
