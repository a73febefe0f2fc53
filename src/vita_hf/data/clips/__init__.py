"""Training clips: how they are sampled, augmented and stacked into batches."""
