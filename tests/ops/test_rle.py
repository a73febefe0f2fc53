"""Both implementations of the RLE operators, C++ and numpy, against pycocotools, dense masks and each other."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers.backends import require
from helpers.metric_reference import compressed, random_mask, uncompressed
from vita_hf.ops import rle, rle_numpy

# pycocotools' own, with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = ((1, 1), (3, 5), (40, 37), (720, 1280))


@pytest.fixture
def ops():
    require("cpp")
    return torch.ops.vita_hf_cpp


def some_masks(rng, height, width):
    masks = [random_mask(rng, height, width) for _ in range(30)]
    return [*masks, np.ones((height, width), bool), np.zeros((height, width), bool)]


# ---------------------------------------------------------------- each implementation
def test_decoding_equals_pycocotools(kernels):
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        masks = some_masks(rng, height, width)
        strings, lists = ([form(mask)["counts"] for mask in masks] for form in (compressed, uncompressed))
        mixed = [pair[index % 2] for index, pair in enumerate(zip(strings, lists))]
        for counts in (strings, lists, mixed):
            pairs, starts, areas = rle.decode(counts, height * width)
            assert (pairs.dtype, starts.dtype, areas.dtype) == (np.int32, np.int64, np.int64)
            assert areas.tolist() == [mask.sum() for mask in masks]
            for index, mask in enumerate(masks):
                runs = pairs[starts[index] : starts[index + 1]].reshape(-1)
                flat = np.repeat(np.arange(len(runs)) % 2, runs)
                assert (flat.reshape((height, width), order="F") == mask).all()


def compress_slowly(runs: list[int]) -> str:
    """Compressed counts by arithmetic on Python's integers."""
    text = ""
    for index, run in enumerate(runs):
        number, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            digit, number = number & 31, number >> 5
            more = number != (-1 if digit & 16 else 0)
            text += chr(48 + digit + 32 * more)
    return text


def test_numbers_of_any_number_of_digits(kernels):
    rng = np.random.default_rng(2)
    lists = [[int(rng.integers(0, 2 ** rng.integers(1, 22))) for _ in range(size)] for size in (1, 2, 3, 40, 401)]
    for runs in [*lists, [rle.MAX_PIXELS], [0, 0, rle.MAX_PIXELS], [0, rle.MAX_PIXELS, 0, 0]]:
        text = rle.compress(runs, sum(runs))
        assert text == compress_slowly(runs)
        pairs, starts, areas = rle.decode([text], sum(runs))
        assert pairs.reshape(-1).tolist() == runs + [0] * (pairs.size - len(runs))
        assert starts.tolist() == [0, len(pairs)] and areas.tolist() == [sum(runs[1::2])]


def test_no_masks(kernels):
    pairs, starts, areas = rle.decode([], 10)
    assert (pairs.shape, starts.tolist(), areas.tolist()) == ((0, 2), [0], [])
    assert list(rle.decode_tracks([], 10)) == []
    pairs, starts, _ = rle.decode([[5, 5]], 10)
    assert rle.intersections(pairs, starts, []).shape == (1, 0)
    assert rle.intersections(pairs, starts[:1], [pairs]).shape == (0, 1)


def test_corrupt_masks_are_found(kernels):
    mask = np.zeros((720, 720), bool)
    mask[:300, 5:305] = True
    good = compressed(mask)["counts"]
    bad = (
        "",
        good[:-1],
        good + "1",
        good + "X0",
        good + "o" * 6 + "0",
        good + "p",
        good + "/",
        "0O",
        good + "~é",
        "\0",
    )
    for counts in bad:
        with pytest.raises(rle.RleError) as error:
            rle.decode([good, counts, good], 720 * 720)
        assert list(error.value.problems) == [1], counts
        assert error.value.problems[1].startswith("corrupt RLE: "), counts
    runs = uncompressed(mask)["counts"]
    bools = [True, 720 * 720 - 1]
    for counts in (
        bools,
        [],
        [5],
        [*runs, 1],
        [-1, *runs[1:], 1],
        [2**64, 0],
        [*runs[:-1], float(runs[-1])],
        [None],
        ["5"],
    ):
        for others in (runs, good):
            with pytest.raises(rle.RleError) as error:
                rle.decode([others, counts, others], 720 * 720)
            assert list(error.value.problems) == [1], counts
    # Sums of more than 32 bits do not pass as small ones: 2^32 + 2^29 − 1 background pixels, and one carried.
    with pytest.raises(rle.RleError, match="add up to"):
        rle.decode([[1 << 29, 0] * 8 + [(1 << 29) - 1]], 1 << 29)


def test_overlaps_of_tracks_that_wrap_around_columns(kernels):
    rng = np.random.default_rng(1)
    for height, width in ((2, 9), (7, 4), (30, 50)):
        tracks = [np.stack([random_mask(rng, height, width) for _ in range(3)]) for _ in range(40)]
        (decoded,) = rle.decode_tracks([[compressed(m)["counts"] for m in t] for t in tracks], height * width)
        parts = [decoded.pairs[first:last] for first, last in pairwise(decoded.starts)]
        expected = [[(a & b).sum() for b in tracks] for a in tracks]
        assert rle.intersections(decoded.pairs, decoded.starts, parts).tolist() == expected
        assert rle.intersections(decoded.pairs, decoded.starts[3:8], parts).tolist() == expected[3:7]


def test_overlaps_beyond_32_bits(kernels):
    """Positions of 40 bits and more, tracks without a row, and object runs that only touch."""
    half = 1 << 30
    pairs = np.array([[half, half]] * 600, np.int32)
    late = np.array([[half, 0]] * 1199 + [[0, 7]], np.int32)
    starts = np.array([0, 600, 600, 600])
    others = [pairs, late, pairs[:0], np.array([[0, half]] * 600, np.int32), np.array([[0, half], [half, 3]], np.int32)]
    assert rle.intersections(pairs, starts, others).tolist() == [[600 * half, 7, 0, 300 * half, 0], [0] * 5, [0] * 5]


# ---------------------------------------------------------------- other forms
@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([], "expected at least one polygon"),
        ([[0, 0, 5, 5]], "polygon 0: expected at least three points"),
        ([[0, 0, 5, 0, 5, 5], [0, 0, 5, 0, 5]], "polygon 1: expected at least three points"),
        ([[0, 0, 5, 0, 5, float("nan")]], "polygon 0: expected .* finite numbers"),
        ([["a"] * 6], "polygon 0: expected .* finite numbers"),
        ([[[0, 0], [5, 0], [5, 5]]], "polygon 0: expected .* finite numbers"),
        ([[0, 0, 1e12, 0, 0, 1e12]], "polygon 0: coordinates and outline must not exceed 4194304 pixels"),
        ([[3e7, 0, 3e7, 5, 3e7, 9]], "polygon 0: coordinates and outline must not exceed"),
        ([[0, 0, 9e6, 0, 0, 0, 9e6, 0]], "polygon 0: coordinates and outline must not exceed"),
    ],
)
def test_polygons_are_checked_before_pycocotools_sees_them(polygons, message):
    with pytest.raises(ValueError, match=message):
        rle.encode_polygons(polygons, 20, 30)


def test_polygons_beyond_the_frame_are_cropped():
    counts = rle.encode_polygons([[-50, -50, 10, -50, 10, 1000, -50, 1000]], 20, 30)
    _, _, areas = rle.decode([counts], 600)
    assert areas.tolist() == [200]


@pytest.mark.parametrize("runs", [[], [5], [3, -1, 8], [5, 5.0], [5, "5"], [True, 9], [2**70]])
def test_run_lengths_are_checked_before_pycocotools_sees_them(runs):
    with pytest.raises(ValueError, match="corrupt RLE: "):
        rle.compress(runs, 10)


# ---------------------------------------------------------------- beside each other
def outcome(decode, *arguments):
    """Runs of each mask, without the empty ones that fill up pairs, and areas; or `None`."""
    try:
        pairs, starts, areas = (np.asarray(array) for array in decode(*arguments))
    except ValueError:
        return None
    assert (pairs.dtype, starts.dtype, areas.dtype) == (np.int32, np.int64, np.int64)
    runs = [np.trim_zeros(pairs[a:b].reshape(-1), "b").tolist() for a, b in pairwise(starts)]
    return runs, areas.tolist()


def outcomes(ops, strings, pixels):
    text = np.frombuffer(bytearray("".join(strings), "latin-1"), np.uint8)
    ends = np.cumsum([len(string) for string in strings])
    tensors = torch.from_numpy(text), torch.from_numpy(ends)
    return outcome(ops.rle_decode, *tensors, pixels), outcome(rle_numpy.decode, text, ends, pixels)


def test_both_accept_and_refuse_the_same(ops):
    """Random texts, and valid masks with a random change."""
    rng = np.random.default_rng(3)
    accepted = 0
    for trial in range(3000):
        height, width = rng.integers(1, 12, 2).tolist()
        strings = [compressed(random_mask(rng, height, width))["counts"] for _ in range(3)]
        victim = bytearray(strings[1].encode())
        change = trial % 4
        if change == 0:
            low, high = (40, 120) if trial % 8 else (48, 64)
            victim = rng.integers(low, high, rng.integers(0, 9)).astype(np.uint8).tobytes()
        elif change == 1:
            victim[rng.integers(len(victim))] = rng.integers(48, 112)
        elif change == 2:
            del victim[rng.integers(len(victim))]
        else:
            victim.insert(rng.integers(len(victim) + 1), int(rng.choice([48, 80, 111])))
        strings[1] = bytes(victim).decode("latin-1")
        cpp, numpy = outcomes(ops, strings, height * width)
        assert cpp == numpy, strings
        assert (cpp is None) == any(rle.explain_corruption(s, height * width) for s in strings), strings
        accepted += cpp is not None
    assert 50 < accepted < 2500


def test_both_give_the_same(ops, monkeypatch):
    rng = np.random.default_rng(4)
    for height, width in SIZES:
        strings = [compressed(mask)["counts"] for mask in some_masks(rng, height, width)[-8:]]
        cpp, numpy = outcomes(ops, strings, height * width)
        assert cpp == numpy is not None
        tables = []
        for choice in ("auto", "off"):
            monkeypatch.setenv("VITA_HF_KERNELS", choice)
            pairs, starts, _ = rle.decode(strings, height * width)
            starts = starts[::2]  # tracks of two frames
            tables.append(rle.intersections(pairs, starts, [pairs[a:b] for a, b in pairwise(starts)]))
        assert (tables[0] == tables[1]).all() and tables[0].max() > 0


# ---------------------------------------------------------------- the operators themselves
TEXT, ENDS = torch.tensor([*b"451451"], dtype=torch.uint8), torch.tensor([3, 6])
PAIRS, STARTS = torch.tensor([[4, 5], [1, 0]], dtype=torch.int32), torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TEXT, torch.tensor([3, 7]), 10), "ends: 7 at 1 is not between the position before it and 6"),
        ((TEXT, torch.tensor([3, 2]), 10), "ends: 2 at 1 is not between"),
        ((TEXT, torch.tensor([-1, 6]), 10), "ends: -1 at 0 is not between"),
        ((TEXT, torch.tensor([3, 2**62]), 10), "ends: 4611686018427387904 at 1"),
        ((TEXT, ENDS.int(), 10), "ends: expected a contiguous vector of Long, got Int"),
        ((TEXT.char(), ENDS, 10), "text: expected a contiguous vector of Byte, got Char"),
        ((TEXT[::2], ENDS[:1], 10), "text: expected a contiguous vector"),
        ((TEXT, ENDS, 2**31), "pixels: expected 0 to 536870912, got 2147483648"),
        ((TEXT, ENDS, -1), "pixels: expected"),
        ((TEXT, torch.tensor([3, 5]), 10), "mask 1 is not an RLE of 10 pixels"),
    ],
)
def test_decode_checks_its_arguments(ops, arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.rle_decode(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PAIRS, torch.tensor([0, 3]), [PAIRS]), "starts: 3 at 1 is not between the position before it and 2"),
        ((PAIRS, torch.tensor([1, 0]), [PAIRS]), "starts: 0 at 1 is not between"),
        ((PAIRS, torch.tensor([-1, 2]), [PAIRS]), "starts: -1 at 0 is not between"),
        ((PAIRS, STARTS[:0], [PAIRS]), "starts: expected the tracks' first rows"),
        ((PAIRS, STARTS.int(), [PAIRS]), "starts: expected a contiguous vector of Long"),
        ((PAIRS.long(), STARTS, [PAIRS]), "pairs: expected contiguous Int of shape"),
        ((PAIRS.view(-1), STARTS, [PAIRS]), "pairs: expected contiguous Int of shape"),
        ((PAIRS, STARTS, [PAIRS, PAIRS.t()]), "others: expected contiguous Int of shape"),
        ((PAIRS, STARTS, [PAIRS[:, :1]]), "others: expected contiguous Int of shape"),
    ],
)
def test_intersections_checks_its_arguments(ops, arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.rle_intersections(*arguments)


# ---------------------------------------------------------------- choosing an implementation
def run_python(code, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


DECODE = "from vita_hf.ops import rle; print(rle.decode(['451'], 10)[2])"


@pytest.mark.parametrize("choice", ["off", "pytorch"])
def test_off_compiles_nothing(tmp_path, choice):
    result = run_python(DECODE, VITA_HF_KERNELS=choice, VITA_HF_KERNELS_CACHE=str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr) == (0, "[5]\n", "")
    assert not list(tmp_path.iterdir())


def test_importing_scoring_compiles_nothing(tmp_path):
    result = run_python("import vita_hf.scoring", VITA_HF_KERNELS="auto", VITA_HF_KERNELS_CACHE=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "false"])
def test_without_a_compiler_numpy_takes_over_without_a_warning(tmp_path, compiler):
    result = run_python(DECODE, VITA_HF_KERNELS="auto", VITA_HF_KERNELS_CACHE=str(tmp_path), CXX=compiler)
    assert (result.returncode, result.stdout) == (0, "[5]\n"), result.stderr
    assert "slower implementations" not in result.stderr


def test_frames_that_overflow_the_encoder_of_pycocotools():
    # Its buffer of 24 bytes for four runs does not hold four runs of 6 characters and a zero byte.
    runs = [2**24, 2**24 + 1, 2**24, 0]
    assert rle.compress(runs, sum(runs)) == compress_slowly(runs)
    with pytest.raises(ValueError, match=r"frames with polygons may have 33554431 pixels, got 1×50331649: use RLE"):
        rle.encode_polygons([[0, 0, 1, 0, 1, 1]], height=1, width=sum(runs))


def test_counts_that_no_file_can_hold_are_reported_like_others():
    # Half of a surrogate pair, as json may hold it.
    counts = rle.read_segmentation({"size": [2, 2], "counts": "\ud8004"}, 2, 2)
    assert counts.encode()
    with pytest.raises(rle.RleError, match="character 'í' at position 0 of its counts is not part of the format"):
        rle.decode([counts], 4)
