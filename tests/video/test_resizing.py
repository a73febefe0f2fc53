from fractions import Fraction

import numpy as np
import pytest

from vita_hf.video.resizing import resize_output_size


@pytest.mark.parametrize(
    "size, edges, expected",
    [
        ((480, 854), (360, 1333), (360, 641)),
        ((854, 480), (360, 1333), (641, 360)),
        ((720, 1280), (360, 1333), (360, 640)),
        ((720, 1280), (448, 1333), (448, 796)),
        ((100, 1000), (360, 1333), (133, 1333)),
        ((1000, 100), (360, 1333), (1333, 133)),
        ((100, 1000), (360, None), (360, 3600)),
        ((50, 50), (360, 1333), (360, 360)),
        ((1, 5000), (360, 1333), (1, 1333)),
    ],
)
def test_resize_output_size(size, edges, expected):
    assert resize_output_size(*size, *edges) == expected


def test_resize_output_size_rounds_the_exact_value_to_the_nearest():
    generator = np.random.default_rng(0)
    for height, width in generator.integers(20, 2000, (2000, 2)).tolist():
        scale = Fraction(360, min(height, width))
        scale = min(scale, Fraction(1333, max(height, width)))
        got = resize_output_size(height, width, 360, 1333)
        assert all(abs(side - exact) <= Fraction(1, 2) for side, exact in zip(got, (height * scale, width * scale)))
