"""Training clips: sampling, augmentation, batching."""
