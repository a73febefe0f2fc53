"""Datasets: annotation files, dataset rows, training clips and synthetic videos. Imports nothing of the model."""
