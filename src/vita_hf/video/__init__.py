"""Frames in and out: opening sources, reading images, resizing, writing."""
