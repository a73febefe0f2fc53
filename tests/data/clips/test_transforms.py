"""Images, masks and polygons go through one geometric transform."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as mask_api

from helpers.clip_rows import instance, make_row, painted, polygons, rle
from vita_hf.data.clips.masks import frame_masks
from vita_hf.data.clips.transforms import Crop, HorizontalFlip, Pad, Resize, Rotate, clip_polygon
from vita_hf.data.frames import BrokenSampleError

SIZE = (90, 120)
# a concave polygon with a notch, so that no symmetry hides a mistake
POLYGON = [20.0, 12.0, 104.0, 20.0, 70.0, 44.0, 100.0, 80.0, 30.0, 70.0]

CHAINS = {
    "resize": [Resize(SIZE, (61, 150))],
    "crop": [Crop(15, 25, (60, 70))],
    "flip": [HorizontalFlip(SIZE)],
    "rotate": [Rotate(13.0, (50.0, 40.0), SIZE)],
    "pad": [Pad(128, (100, 140))],
    "all": [
        Resize(SIZE, (120, 160)),
        Crop(20, 10, (90, 130)),
        Resize((90, 130), (72, 104)),
        HorizontalFlip((72, 104)),
        Rotate(-11.0, (45.0, 40.0), (72, 104)),
        Pad(0, (80, 112)),
    ],
}


def rasterize(polygon, size=SIZE) -> np.ndarray:
    return mask_api.decode(mask_api.merge(mask_api.frPyObjects([polygon], *size))).astype(bool)


def border(mask: np.ndarray) -> np.ndarray:
    """Pixels with a neighbor of another value, among the eight."""
    near = np.pad(mask, 1, mode="edge")
    shifted = [near[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(3) for x in range(3)]
    return np.any(shifted, axis=0) & ~np.all(shifted, axis=0)


def transformed_image(mask: np.ndarray, chain) -> np.ndarray:
    image = Image.fromarray(painted(mask))
    for transform in chain:
        image = transform.image(image)
        assert image.size[::-1] == transform.new_size
    return np.asarray(image)[..., 0]


def transformed_masks(segmentations: list, chain) -> np.ndarray:
    row = make_row([np.zeros((*SIZE, 3), np.uint8)], [instance([segmentation]) for segmentation in segmentations])
    return frame_masks(row, row["instances"], 0, chain)


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_images_rles_and_polygons_agree_up_to_the_border(chain):
    mask = rasterize(POLYGON)
    from_rle, from_polygon = transformed_masks([rle(mask), polygons(POLYGON)], chain)
    image = transformed_image(mask, chain)
    if isinstance(chain[-1], Pad):
        image = np.where(image == chain[-1].value, 0, image)
    assert from_rle.dtype == bool and from_rle.shape == chain[-1].new_size
    assert 500 < from_rle.sum() < from_rle.size - 500
    for first, second in ((from_rle, image > 127), (from_polygon, image > 127), (from_rle, from_polygon)):
        assert not ((first != second) & ~border(first) & ~border(second)).any()
        # no systematic shift, not even of half a pixel
        centers = np.argwhere(first).mean(0), np.argwhere(second).mean(0)
        assert np.abs(centers[0] - centers[1]).max() < 0.15
        assert abs(first.sum() / second.sum() - 1) < 0.02


def test_exact_transforms_move_every_pixel():
    mask = np.random.default_rng(0).random(SIZE) < 0.5
    chain = [Crop(3, 5, (70, 81)), HorizontalFlip((70, 81)), Pad(0, (75, 96))]
    expected = np.zeros((75, 96), bool)
    expected[:70, :81] = mask[3:73, 5:86][:, ::-1]
    assert np.array_equal(transformed_masks([rle(mask)], chain)[0], expected)
    assert np.array_equal(transformed_image(mask, chain), expected * np.uint8(255))


@pytest.mark.parametrize("size", [(45, 60), (37, 120), (180, 240), (91, 77), (1, 1)])
def test_masks_are_resized_as_pillow_does(size):
    masks = np.random.default_rng(0).random((3, *SIZE)) < 0.5
    got = transformed_masks([rle(mask) for mask in masks], [Resize(SIZE, size)])
    for mask, result in zip(masks, got):
        expected = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(result, np.asarray(expected))


def test_images_are_resized_as_pillow_does_with_antialiasing():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    got = Resize(SIZE, (31, 40)).image(image)
    assert np.array_equal(got, image.resize((40, 31), Image.Resampling.BILINEAR))
    assert np.asarray(got).std() < 0.5 * np.asarray(image).std()  # averaged, not picked


def test_rotation_is_counter_clockwise_about_the_center():
    # a point right of the center goes up by a quarter turn, and up means a smaller row
    rotate = Rotate(90.0, (60.0, 45.0), SIZE)
    np.testing.assert_allclose(rotate.polygon(np.array([[90.0, 45.0], [60.0, 45.0]])), [[60, 15], [60, 45]], atol=1e-9)
    mask = np.zeros(SIZE, bool)
    mask[45, 89] = True  # its center is 29.5 right of and 0.5 below the center of rotation
    rotated = transformed_masks([rle(mask)], [rotate])[0]
    assert np.argwhere(rotated).tolist() == [[15, 60]]
    assert np.argwhere(transformed_image(mask, [rotate]) > 127).tolist() == [[15, 60]]


def test_rotation_brings_black_in_and_keeps_the_size():
    image = Rotate(15.0, (60.0, 45.0), SIZE).image(Image.new("RGB", SIZE[::-1], (200, 100, 50)))
    corners = np.asarray(image)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert image.size == SIZE[::-1] and not corners.any()
    assert np.asarray(image)[45, 60].tolist() == [200, 100, 50]


def test_polygons_do_not_come_back_after_a_crop():
    # Left of the crop; a rotation would turn it into the black corner.
    outside = polygons([0.0, 0.0, 38.0, 0.0, 38.0, 90.0, 0.0, 90.0])
    chain = [Crop(0, 40, (90, 80)), Rotate(15.0, (40.0, 45.0), (90, 80))]
    assert not transformed_masks([outside], chain).any()
    whole = polygons([0.0, 0.0, 120.0, 0.0, 120.0, 90.0, 0.0, 90.0])
    got = transformed_masks([whole], chain)[0]
    expected = transformed_image(np.ones(SIZE, bool), chain) > 127
    assert 0.8 < expected.mean() < 0.99
    inner = ~border(expected)
    assert np.array_equal(got[inner], expected[inner])


def test_clip_polygon_covers_what_a_renderer_leaves_of_random_polygons():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.uniform(-40, 100, (rng.integers(3, 9), 2)).round()
        clipped = clip_polygon(points, 50, 60)
        assert clipped.size == 0 or (clipped.min() >= 0 and (clipped.max(0) <= (60, 50)).all())
        # Even-odd filling of a large canvas, cut, against the clipped polygon's.
        fills = []
        for shape in (points, clipped):
            canvas = Image.new("1", (800, 800))
            if len(shape):
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in (shape * 4 + 200).tolist()], fill=1)
            fills.append(np.asarray(canvas)[200:400, 200:440])
        differ = fills[0] != fills[1]
        assert not (differ & ~border(fills[0]) & ~border(fills[1])).any()


def test_clip_polygon_of_a_square_is_exact():
    square = np.array([[-10.0, -10], [30, -10], [30, 30], [-10, 30]])
    clipped = clip_polygon(square, 20, 25)
    assert sorted(map(tuple, clipped.tolist())) == [(0, 0), (0, 20), (25, 0), (25, 20)]
    assert clip_polygon(square + 100, 20, 25).shape == (0, 2)
    assert sorted(map(tuple, clip_polygon(square, 100, 100).tolist())) == [(0, 0), (0, 30), (30, 0), (30, 30)]


def test_polygon_parts_are_joined_and_absent_instances_are_empty():
    parts = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0], [20.0, 20.0, 50.0, 20.0, 50.0, 40.0, 20.0, 40.0]]
    got = transformed_masks([None, polygons(*parts), rle(rasterize(POLYGON))], [])
    assert not got[0].any()
    assert np.array_equal(got[1], rasterize(parts[0]) | rasterize(parts[1]))
    assert got[1][25, 25] and np.array_equal(got[2], rasterize(POLYGON))


@pytest.mark.parametrize(
    "counts, message",
    [
        (rle(np.ones((90, 121), bool))["rle"], "add up to 10890, expected height·width = 10800"),
        ("", "add up to 0"),
        ("a\x00", "not part of the format"),
    ],
)
def test_rles_of_another_size_are_named(counts, message):
    with pytest.raises(BrokenSampleError, match=rf"video 7, annotation 1, frame 0: .*{message}"):
        transformed_masks([{"rle": counts, "polygons": None}], [])
