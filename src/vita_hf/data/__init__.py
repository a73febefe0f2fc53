"""Annotation files, dataset rows, training clips and synthetic videos. Imports nothing from the model code."""
