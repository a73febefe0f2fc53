"""What a segmentation is: `instances.VideoInstances`, built from a model's outputs and drawn over its video."""
