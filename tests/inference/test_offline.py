"""The engine against the model and the processor run over a whole video at once."""

import sys
import threading

import numpy as np
import pytest
import torch

from vita_hf.inference import mask_feature_stores
from vita_hf.inference.loading import load_model
from vita_hf.inference.offline import read_ahead, segment_video
from vita_hf.inference.options import SegmentationOptions
from vita_hf.video.sources import open_video

FRAMES, HEIGHT, WIDTH = 11, 50, 70


@pytest.fixture(scope="module")
def video():
    """A blob that wanders, on noise."""
    video = np.random.default_rng(0).integers(0, 80, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, frame in enumerate(video):
        frame[10:30, 2 * index : 2 * index + 25] += 150
    return video


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def whole(loaded, video):
    """What the model and the processor make of the whole video, by the paper's rule."""
    model, processor = loaded
    inputs = processor(video)
    with torch.no_grad():
        outputs = model(**inputs)
    (result,) = processor.post_process_video_instance_segmentation(
        outputs, inputs["frame_sizes"], inputs["original_sizes"], top_k=10, output_format="rle"
    )
    return result


def segment(loaded, video, **options):
    options = {"top_k": 10, "threshold": 0.0, "one_label_per_query": False} | options
    return segment_video(*loaded, video, SegmentationOptions(**options))


def assert_equal(got, expected):
    assert torch.equal(got.scores, expected.scores)
    assert torch.equal(got.labels, expected.labels) and torch.equal(got.query_indices, expected.query_indices)
    assert got.masks == expected.masks and got.size == expected.size


@pytest.mark.parametrize("mask_features", ["auto", "exact", "device", "recompute"])
def test_equal_to_the_whole_video_at_once(loaded, video, whole, mask_features):
    assert len(whole) == 10 and whole.num_frames == FRAMES
    areas = whole.areas.double().mean(1) / (HEIGHT * WIDTH)
    assert ((areas > 0.05) & (areas < 0.95)).any()  # there is something to get wrong
    assert_equal(segment(loaded, video, mask_features=mask_features), whole)


@pytest.mark.parametrize("mask_features", ["host", "disk"])
def test_half_precision_is_all_that_host_and_disk_lose(loaded, video, whole, mask_features):
    model, processor = loaded
    inputs = processor(video)
    with torch.no_grad():
        outputs = model(**inputs)
    outputs.video_mask_features = outputs.video_mask_features.half()
    (rounded,) = processor.post_process_video_instance_segmentation(
        outputs, inputs["frame_sizes"], inputs["original_sizes"], top_k=10, output_format="rle"
    )
    got = segment(loaded, video, mask_features=mask_features)
    assert_equal(got, rounded)
    torch.testing.assert_close(got.scores, whole.scores, rtol=0, atol=1e-3)


@pytest.mark.parametrize("chunk_size", [1, 3, 11, 100])
def test_chunks_change_nothing(loaded, video, whole, chunk_size):
    got = segment(loaded, video, chunk_size=chunk_size)
    torch.testing.assert_close(got.scores, whole.scores, rtol=0, atol=1e-6)
    assert torch.equal(got.labels, whole.labels)
    different = got.to_dense().masks != whole.to_dense().masks
    assert different.float().mean() < 1e-4  # logits that are zero but for rounding


def test_default_options(loaded, video):
    everything = segment(loaded, video, top_k=None, one_label_per_query=True)
    assert sorted(everything.query_indices.tolist()) == [0, 1, 2, 3, 4]
    result = segment_video(*loaded, video)
    assert_equal(result, everything.filter(min_score=0.3))
    middle = everything.scores[2].item()
    above = segment(loaded, video, top_k=None, one_label_per_query=True, threshold=middle)
    assert_equal(above, everything[:3])
    assert result.id2label == {0: "cat", 1: "dog", 2: "fox", 3: "hen", 4: "owl"}
    assert len(segment(loaded, video, top_k=None)) == loaded[0].config.evaluation_top_k == 10


@pytest.mark.parametrize("mask_features", ["disk", "recompute"])
def test_nothing_found(loaded, video, mask_features):
    result = segment(loaded, video, threshold=1.0, mask_features=mask_features)
    assert (len(result), result.num_frames, result.size) == (0, FRAMES, (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "options, frames",
    [
        ({"stride": 3}, [0, 3, 6, 9]),
        ({"stride": 3, "max_frames": 2}, [0, 3]),
        ({"max_frames": 4}, [0, 1, 2, 3]),
        ({"max_frames": 99}, list(range(11))),
        ({"stride": 1}, list(range(11))),
    ],
)
def test_thinned_out(loaded, video, options, frames):
    got = segment(loaded, video, **options)
    assert_equal(got, segment(loaded, video[frames]))
    assert got.frame_indices == (frames if options.get("stride", 1) > 1 else None)


def test_frames_that_come_once(loaded, video, whole):
    got = segment(loaded, iter(video), mask_features="device")
    assert_equal(got, whole)
    source = open_video(iter(video))
    got = segment(loaded, source, stride=2, max_frames=4)
    assert_equal(got, segment(loaded, video[:7:2], mask_features="disk"))
    assert got.frame_indices == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="the video is an iterator, which gives its frames only once"):
        segment(loaded, source)
    with pytest.raises(ValueError, match="mask_features='recompute' needs a second pass"):
        segment(loaded, iter(video), mask_features="recompute")


def test_a_frame_rate_needs_a_video_that_states_one(loaded, video):
    with pytest.raises(ValueError, match="the video does not state its frame rate: pass stride, not fps"):
        segment(loaded, video, fps=5)


def test_numbers_that_are_not_finite_are_noticed(loaded, video):
    model = load_model(loaded[0].config._name_or_path)[0]
    with torch.no_grad():
        model.model.transformer_module.decoder.layernorm.weight[0] = torch.inf
    with pytest.raises(ValueError, match=r"the detector gives numbers that are not finite.*or float32 cannot hold"):
        segment((model, loaded[1]), video)


def test_an_error_in_the_middle_is_the_one_that_is_raised(loaded, video, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frames = [*video[:9], video[9][:, 1:]]
    threads = threading.active_count()
    with pytest.raises(ValueError, match=r"frame 9: all frames of a video must have one size; this one is 50×69"):
        segment(loaded, frames, mask_features="disk")
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_mask_memory_is_bounded_for_many_tracks(loaded, video, whole, monkeypatch):
    """With room for a frame only, masks come frame by frame, and are the same."""
    monkeypatch.setattr("vita_hf.inference.offline._MASK_PIXELS", 1)
    got = segment(loaded, video)
    torch.testing.assert_close(got.scores, whole.scores, rtol=0, atol=1e-6)
    assert (got.to_dense().masks != whole.to_dense().masks).float().mean() < 1e-4


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("progress", [True, False, None])
def test_progress_shows_the_video_and_frames_a_second(loaded, video, capsys, monkeypatch, progress, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    source = open_video(video, name="videos/clip.mp4")
    segment(loaded, source, progress=progress, mask_features="recompute")
    printed = capsys.readouterr().err
    if terminal and progress is not False:
        assert "frame/s" in printed and "11/11" in printed
        assert "\rclip.mp4: detecting" in printed and "\rclip.mp4: masks" in printed
    else:
        assert printed == ""  # a log gets a line only every minute


def test_memory_for_masks_decides(loaded, video, monkeypatch, caplog):
    """A frame has 16 channels of 16×24 floats, 24,576 bytes; half of the free memory may be used."""
    monkeypatch.setattr(mask_feature_stores, "free_memory", lambda device: 2 * FRAMES * 24_576 - 1)
    with caplog.at_level("DEBUG", logger="vita_hf.inference.mask_feature_stores"):
        segment(loaded, video, mask_features="exact")
        segment(loaded, video, mask_features="auto")
    assert caplog.messages == ["mask features: recompute (11 frames)", "mask features: host (11 frames)"]


def test_half_precision_models(loaded, video, whole):
    half = load_model(loaded[0].config._name_or_path, dtype=torch.bfloat16)[0]
    exact, kept = (segment((half, loaded[1]), video, mask_features=mode) for mode in ("device", "disk"))
    assert_equal(kept, exact)  # half precision already
    torch.testing.assert_close(exact.scores[0], whole.scores[0], rtol=0, atol=0.05)
    assert exact.scores.dtype == torch.float32


def test_only_one_chunk_is_prepared_ahead():
    taken = []

    def numbers():
        for number in range(10):
            taken.append(number)
            yield number

    with_ahead = read_ahead(numbers())
    assert next(with_ahead) == 0
    for _ in range(200):  # the thread has all the time it wants
        if len(taken) == 2:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert taken == [0, 1]
    assert list(with_ahead) == list(range(1, 10))


def test_reading_ahead_ends_with_its_user():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    threads = threading.active_count()
    numbers = read_ahead(endless())
    next(numbers)
    numbers.close()
    assert closed.is_set() and threading.active_count() == threads

    def broken():
        yield 1
        raise KeyError("lost")

    numbers = read_ahead(broken())
    assert next(numbers) == 1
    with pytest.raises(KeyError, match="lost"):
        next(numbers)
    assert threading.active_count() == threads


@pytest.mark.parametrize("rule", [{"one_label_per_query": True, "top_k": None}, {"top_k": 7}, {"top_k": None}])
def test_filtering_by_score_equals_another_threshold(loaded, video, rule):
    tracks = segment(loaded, video, threshold=0.05, **rule)
    threshold = tracks.scores.sort().values[len(tracks) // 2].item()
    expected = segment(loaded, video, threshold=threshold, **rule)
    chosen = tracks.filter(min_score=threshold)
    assert_equal(chosen, expected)
    assert 0 < len(chosen) < len(tracks) and chosen.track_ids.tolist() == expected.track_ids.tolist()


def test_a_model_in_training_mode_is_refused(loaded, video):
    model, processor = loaded
    model.train()
    try:
        with pytest.raises(ValueError, match="the model is in training mode, which changes results"):
            segment_video(model, processor, video)
    finally:
        model.eval()
