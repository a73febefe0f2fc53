"""Data sets: categories, readers, clip sampling and transforms. Imports nothing from the model."""
