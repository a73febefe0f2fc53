"""Both implementations of `rle.Kernels`, C and numpy, against pycocotools, dense masks and each other."""

import ctypes
import logging
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from helpers.metric_reference import compressed, random_mask, uncompressed
from vita_hf.metrics import VIS_AP
from vita_hf.ops import compiling, rle, rle_native, rle_numpy
from vita_hf.ops.rle_format import CorruptError

# pycocotools' own, with NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = ((1, 1), (3, 5), (40, 37), (720, 1280))


@pytest.fixture
def native():
    library = rle_native.load_native()
    if library is None:
        pytest.skip("no C compiler here")
    return library


def some_masks(rng, height, width):
    masks = [random_mask(rng, height, width) for _ in range(30)]
    return [*masks, np.ones((height, width), bool), np.zeros((height, width), bool)]


# ---------------------------------------------------------------- each of them
def test_decoding_equals_pycocotools(kernels):
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        masks = some_masks(rng, height, width)
        forms = [compressed(mask)["counts"] for mask in masks]
        for counts in (forms, [uncompressed(mask)["counts"] for mask in masks]):
            pairs, starts, areas = rle.decode(counts, height * width)
            assert areas.tolist() == [mask.sum() for mask in masks]
            for index, mask in enumerate(masks):
                runs = pairs[starts[index] : starts[index + 1]].reshape(-1)
                flat = np.repeat(np.arange(len(runs)) % 2, runs)
                assert (flat.reshape((height, width), order="F") == mask).all()


def test_numbers_of_any_number_of_digits(kernels):
    """Runs of 1 to 6 digits, written by arithmetic on Python's integers."""
    rng = np.random.default_rng(2)
    for size in (1, 2, 3, 40, 401):
        runs = [int(rng.integers(0, 2 ** rng.integers(1, 22))) for _ in range(size)]
        numbers = [run - (runs[index - 2] if index > 2 else 0) for index, run in enumerate(runs)]
        text = ""
        for number in numbers:
            more = True
            while more:
                digit, number = number & 31, number >> 5
                more = number != (-1 if digit & 16 else 0)
                text += chr(48 + digit + 32 * more)
        pairs, starts, areas = rle.decode([text], sum(runs))
        assert pairs.reshape(-1).tolist() == runs + [0] * (pairs.size - size)
        assert starts.tolist() == [0, len(pairs)] and areas.tolist() == [sum(runs[1::2])]


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
    for counts in ([], [5], [*runs, 1], [-1, *runs[1:], 1], [2**64, 0], [*runs[:-1], float(runs[-1])], [None], ["5"]):
        with pytest.raises(rle.RleError) as error:
            rle.decode([runs, counts, runs], 720 * 720)
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
        functions = rle.kernels()
        shared = functions.intersections(decoded.pairs, decoded.starts, functions.index(parts, height, 3 * width))
        assert shared.tolist() == [[(a & b).sum() for b in tracks] for a in tracks]


# ---------------------------------------------------------------- beside each other
def outcome(decode, masks, pixels):
    """Runs of each mask, without the empty ones that fill up pairs, and areas; or `None`."""
    try:
        pairs, starts, areas = decode(masks, pixels)
    except CorruptError:
        return None
    assert (pairs.dtype, starts.dtype, areas.dtype) == (np.int32, np.int64, np.int64)
    runs = [np.trim_zeros(pairs[a:b].reshape(-1), "b").tolist() for a, b in pairwise(starts)]
    return runs, areas.tolist()


def test_both_take_and_refuse_the_same(native):
    """Random texts, and valid masks with a random change."""
    rng = np.random.default_rng(3)
    taken = 0
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
        results = [outcome(f, strings, height * width) for f in (native.decode_strings, rle_numpy.decode_strings)]
        assert results[0] == results[1], strings
        assert (results[0] is None) == any(rle.explain_corruption(s, height * width) for s in strings), strings
        taken += results[0] is not None
        runs = rng.integers(-1, 5, rng.integers(0, 6)).tolist()
        lists = [[6], runs, [2, 4]]
        assert outcome(native.decode_runs, lists, 6) == outcome(rle_numpy.decode_runs, lists, 6), runs
    assert 50 < taken < 2500


def test_both_give_the_same(native):
    rng = np.random.default_rng(4)
    for height, width in SIZES:
        masks = some_masks(rng, height, width)[-8:]
        strings, lists = ([form(mask)["counts"] for mask in masks] for form in (compressed, uncompressed))
        tables = []
        for functions in (native, rle_numpy):
            pairs, starts, _ = functions.decode_strings(strings, height * width)
            starts = starts[::2]  # tracks of two frames
            others = functions.index([pairs[a:b] for a, b in pairwise(starts)], height, 2 * width)
            tables.append(functions.intersections(pairs, starts, others))
        assert (tables[0] == tables[1]).all() and tables[0].max() > 0
        results = [outcome(f.decode_strings, strings, height * width) for f in (native, rle_numpy)]
        results += [outcome(f.decode_runs, lists, height * width) for f in (native, rle_numpy)]
        assert results[0] == results[1] == results[2] == results[3] is not None


# ---------------------------------------------------------------- compiling
def test_off_compiles_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(tmp_path))
    for choice in ("off", "pytorch"):
        monkeypatch.setenv("VITA_HF_KERNELS", choice)
        assert rle_native.load_native() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PATH": ""}, "no C compiler: none of cc, gcc, clang is there"),
        ({"CC": "no-such-compiler -m64"}, "no C compiler: none of no-such-compiler -m64 is there"),
        ({"CC": "false"}, "false failed with exit status 1"),
        ({"VITA_HF_KERNELS_CACHE": os.devnull + "/folder"}, "Not a directory"),
    ],
)
def test_without_a_compiler_numpy_takes_over(variables, message, monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("VITA_HF_KERNELS", "auto")
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        assert rle_native.load_native() is None
    (record,) = caplog.records
    assert record.levelno == logging.INFO and message in record.getMessage()
    assert not list(tmp_path.iterdir())


def test_a_library_that_does_not_load(native, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(tmp_path))
    path = compiling.compile_once("vis_ap", rle_native._SOURCE)
    path.write_bytes(b"of another machine")
    with caplog.at_level(logging.INFO):
        assert rle_native.load_native() is None
    assert "does not load, numpy takes over" in caplog.text


def test_sources_have_libraries_of_their_own(native, monkeypatch, tmp_path):
    monkeypatch.setenv("VITA_HF_KERNELS_CACHE", str(tmp_path))
    paths = [compiling.compile_once("answer", f"int answer(void) {{ return {value}; }}") for value in (41, 42)]
    assert [ctypes.CDLL(str(path)).answer() for path in paths] == [41, 42]
    before = paths[0].stat().st_mtime_ns
    assert compiling.compile_once("answer", "int answer(void) { return 41; }") == paths[0]
    assert paths[0].stat().st_mtime_ns == before


def test_processes_that_start_together(native, tmp_path):
    (tmp_path / "kernels_only").symlink_to(VIS_AP)  # without the package, which takes long to import
    code = "from kernels_only.rle_native import load_native; assert load_native() is not None"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "VITA_HF_KERNELS_CACHE": str(tmp_path / "cache")}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    (library,) = (tmp_path / "cache").iterdir()
    assert library.name.startswith("vis_ap-") and library.suffix == ".so"
