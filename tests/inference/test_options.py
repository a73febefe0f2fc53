import dataclasses

import pytest

from vita_hf.inference.options import SegmentationOptions


@pytest.mark.parametrize(
    "options, message",
    [
        ({"fps": 5, "stride": 2}, "fps and stride both reduce the number of frames: pass only one of them"),
        ({"stride": 0}, "stride must be positive, got 0"),
        ({"stride": 1.5}, "stride must be a whole number, got 1.5"),
        ({"max_frames": -1}, "max_frames must be positive, got -1"),
        ({"fps": 0}, "fps must be positive, got 0"),
        ({"fps": float("inf")}, "fps must be positive, got inf"),
        ({"top_k": 0}, "top_k must be positive, got 0"),
        ({"threshold": 1.5}, "threshold must be between 0 and 1, got 1.5"),
        ({"threshold": float("nan")}, "threshold must be between 0 and 1, got nan"),
        ({"classes": []}, "classes must name at least one class, got none"),
        ({"threshold": "0.5"}, "threshold must be a number, got '0.5'"),
        ({"threshold": None}, "threshold must be a number, got None"),
        ({"fps": "5"}, "fps must be a number, got '5'"),
        ({"max_frames": True}, "max_frames must be a number, got True"),
        ({"strict": "no"}, "strict must be True or False, got 'no'"),
        ({"classes": 3.5}, "classes must be names or indices of classes, got 3.5"),
        ({"chunk_size": -1}, "chunk_size must be positive, got -1"),
        ({"mask_features": "cache"}, "mask_features must be one of 'auto', 'exact', 'device', .*, got 'cache'"),
        ({"decoder": "cv2"}, "decoder must be one of None, 'pyav', 'torchcodec', got 'cv2'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        SegmentationOptions(**options)


def test_unknown_options():
    with pytest.raises(TypeError, match="treshold"):
        SegmentationOptions(treshold=0.5)


def test_options_are_frozen():
    options = SegmentationOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.threshold = 0.5


def test_options_for_scoring():
    assert SegmentationOptions.for_scoring(7) == SegmentationOptions(
        threshold=0.0, top_k=7, one_label_per_query=False, mask_features="exact", progress=False
    )
