"""Model, training and dataset cards."""
