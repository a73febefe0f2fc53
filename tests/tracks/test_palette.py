import itertools

import numpy as np
import pytest

from vita_hf.tracks.palette import PALETTE, text_color


def cielab(colors, matrix):
    """CIELAB of sRGB colors (n, 3) in 0 … 255, seen through a matrix on linear RGB."""
    srgb = np.asarray(colors) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(matrix), 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.transpose(to_xyz) / np.sum(to_xyz, axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def closest(colors, vision):
    lab = cielab(colors, VISIONS[vision])
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("vision", VISIONS)
def test_colors_are_told_apart(vision):
    # A CIELAB distance of 2.3 is just noticeable.
    assert closest(PALETTE[:8], vision) > 16
    assert closest(PALETTE, vision) > 15


def test_simulation_confuses_what_color_blind_people_confuse():
    red, green = (196, 67, 0), (118, 118, 0)
    assert closest([red, green], "normal") > 50
    assert closest([red, green], "protanopia") < closest([red, green], "normal") / 2
    assert closest([red, green], "deuteranopia") < closest([red, green], "normal") / 2


def test_text_is_readable_on_every_color():
    def luminance(color):
        srgb = np.asarray(color) / 255
        return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for color in PALETTE:
        low, high = sorted([luminance(color), luminance(text_color(color))])
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.1, level AA
