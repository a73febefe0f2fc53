"""`pipeline("video-instance-segmentation")`: what it takes, what it gives, and what it says of what it cannot take."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import GeneratorType

import numpy as np
import pytest
import torch
from datasets import Dataset, Video
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForUniversalSegmentation, Mask2FormerConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from helpers.videos import FRAMES, HEIGHT, WIDTH, encode_video, make_frames, write_images, write_video
from vita_hf import VideoInstances, VideoInstanceSegmentationPipeline, VitaVideoProcessor


@pytest.fixture(scope="module")
def segmenter(tiny_model):
    return pipeline("video-instance-segmentation", model=str(tiny_model), device="cpu", threshold=0.0)


@pytest.fixture(scope="module")
def expected(segmenter):
    return segmenter(make_frames())


def assert_equal(got, expected):
    assert isinstance(got, VideoInstances)
    assert torch.equal(got.scores, expected.scores) and torch.equal(got.track_ids, expected.track_ids)
    assert got.masks == expected.masks


def test_registered(segmenter):
    assert type(segmenter) is VideoInstanceSegmentationPipeline
    assert type(segmenter.video_processor) is VitaVideoProcessor
    assert not segmenter.model.training


KINDS = {
    "array": lambda frames, path: frames,
    "tensor": lambda frames, path: torch.from_numpy(frames).permute(0, 3, 1, 2),
    "list of arrays": lambda frames, path: list(frames),
    "list of images": lambda frames, path: [Image.fromarray(frame) for frame in frames],
    "folder": lambda frames, path: write_images(path / "frames", frames),
    "list of paths": lambda frames, path: sorted(map(str, write_images(path / "frames", frames).iterdir())),
    "video file": lambda frames, path: write_video(path / "video.mp4", frames),
    "video file as str": lambda frames, path: str(write_video(path / "video.mp4", frames)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_videos(segmenter, expected, tmp_path, kind):
    video = KINDS[kind](make_frames(), tmp_path)
    assert_equal(segmenter(video), expected)
    one, other = segmenter([video, video])
    assert_equal(one, expected)
    assert_equal(other, expected)


def test_a_single_image_is_a_video_of_one_frame(segmenter, tmp_path):
    image = Image.fromarray(make_frames()[0])
    image.save(tmp_path / "image.png")
    for video in (image, [image], tmp_path / "image.png", make_frames()[:1]):
        result = segmenter(video)
        assert (result.num_frames, result.size) == (1, (HEIGHT, WIDTH))


def test_a_batch_as_one_array(segmenter, expected):
    results = segmenter(np.stack([make_frames(), make_frames()]))
    assert len(results) == 2
    assert_equal(results[1], expected)


def test_generators_are_read_as_results_are_asked_for(segmenter, expected):
    read = []

    def videos():
        for index in range(3):
            read.append(index)
            yield make_frames()

    generator = videos()
    assert isinstance(generator, GeneratorType)
    results = segmenter(generator)
    assert_equal(next(iter(results)), expected)
    assert len(read) < 3


DATASETS = {
    "column": lambda rows: Dataset.from_list(rows)["video"],
    "streamed column": lambda rows: Dataset.from_list(rows).to_iterable_dataset()["video"],
    "KeyDataset": lambda rows: KeyDataset(Dataset.from_list(rows), "video"),
    "KeyDataset of a list": lambda rows: KeyDataset(rows, "video"),
    "map": lambda rows: map(str, [row["video"] for row in rows]),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets(segmenter, expected, tmp_path, kind):
    path = str(write_video(tmp_path / "video.mp4", make_frames()))
    results = segmenter(DATASETS[kind]([{"video": path}, {"video": path}]))
    assert isinstance(results, Iterator)
    one, other = results
    assert_equal(one, expected)
    assert_equal(other, expected)


def test_undecoded_videos_of_datasets(segmenter, expected, tmp_path):
    path = write_video(tmp_path / "video.mp4", make_frames())
    rows = [{"path": str(path), "bytes": None}, {"path": "gone.mp4", "bytes": path.read_bytes()}]
    for result in segmenter(rows):
        assert_equal(result, expected)
    column = Dataset.from_dict({"video": rows}).cast_column("video", Video(decode=False))["video"]
    for result in segmenter(column, mask_features="recompute"):
        assert_equal(result, expected)
    with pytest.raises(TypeError, match="got a row with the columns 'video', 'label': pass one column"):
        list(segmenter(Dataset.from_dict({"video": [str(path)], "label": [0]})))


def test_a_row_of_a_dataset(segmenter, expected, tmp_path):
    path = write_video(tmp_path / "video.mp4", make_frames())
    assert_equal(segmenter({"path": None, "bytes": path.read_bytes()}), expected)
    with pytest.raises(TypeError, match="got a row with the columns 'video', 'label': pass one column"):
        segmenter({"video": str(path), "label": 1})


def test_two_pipelines_in_two_threads(tiny_model, segmenter):
    """Each thread's results are its own, in inference mode of its own, also of one shared pipeline."""
    other = pipeline("video-instance-segmentation", model=str(tiny_model), device="cpu", threshold=0.0)
    videos = [make_frames(4), make_frames(7)[:, ::-1]]
    expected = [segmenter(video) for video in videos]
    for second in (other, segmenter):
        with ThreadPoolExecutor(2) as threads:
            jobs = [threads.submit(pipe, video) for _ in range(3) for pipe, video in zip((segmenter, second), videos)]
        for index, job in enumerate(jobs):
            assert_equal(job.result(), expected[index % 2])


def test_iterators_of_frames(segmenter, expected):
    (result,) = segmenter([iter(make_frames())], mask_features="device")
    assert_equal(result, expected)


def test_addresses(segmenter, expected, tmp_path):
    write_video(tmp_path / "video.mp4", make_frames())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            assert_equal(segmenter(f"{address}/video.mp4", mask_features="recompute"), expected)
            frames = [Image.fromarray(frame) for frame in make_frames()]
            frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=50, lossless=True)
            result = segmenter(f"{address}/a.webp?size=full")
            assert_equal(result, expected)
            np.testing.assert_allclose(result.timestamps, [0, 0.05, 0.1, 0.15, 0.2])
            with pytest.raises(OSError, match=r"cannot download http://.*/nothing\.mp4: .*404"):
                segmenter(f"{address}/nothing.mp4")
        finally:
            server.shutdown()


def test_frames_a_second(segmenter, tmp_path):
    """12 frames a second, 5 wanted: one of 2.4."""
    path = write_video(tmp_path / "video.mp4", make_frames(12))
    result = segmenter(path, fps=5)
    assert result.frame_indices == [0, 2, 4, 7, 9] and result.fps == 12
    assert_equal(result, segmenter(make_frames(12)[result.frame_indices]))
    assert segmenter(path, fps=100).num_frames == 12
    assert segmenter(path, stride=4, max_frames=2).frame_indices == [0, 4]


def test_times_of_a_variable_frame_rate(segmenter, tmp_path):
    times = [0, 0.02, 0.04, 0.06, 0.08, 0.1, 1, 2, 3, 4]
    path = encode_video(tmp_path / "phone.mp4", make_frames(10), times)
    result = segmenter(path)
    np.testing.assert_allclose(result.timestamps, times, atol=1e-4)
    assert result.frame_indices is None
    result = segmenter(path, fps=1)
    assert result.frame_indices == [0, 6, 7, 8, 9]
    np.testing.assert_allclose(result.timestamps, [0, 1, 2, 3, 4], atol=1e-4)
    again = VideoInstances.from_json(result.to_json())
    assert (again.timestamps, again.fps) == (result.timestamps, result.fps)


@pytest.mark.parametrize(
    "name, times, stated, average",
    [
        ("phone.mkv", [0, 0.04, 0.5, 1, 2], 25, 2),  # Matroska states the rate of the shortest frames
        ("screen.mkv", [0, 0.04, 0.5, 1, 2], 1000, 2),
        ("film.mkv", [0, 0.042, 0.083, 0.125, 0.167], 24, 24),  # and rounds times
    ],
)
def test_the_average_rate_is_that_of_the_frames(segmenter, tmp_path, name, times, stated, average):
    path = encode_video(tmp_path / name, make_frames(5), times, rate=stated)
    assert segmenter(path).fps == average
    (metadata,) = segmenter.video_processor(path, return_metadata=True).video_metadata
    assert (metadata.fps, metadata.duration) == (average, 5 / average)


def test_a_rate_for_images(segmenter, tmp_path):
    folder = write_images(tmp_path / "frames", make_frames(6))
    result = segmenter(folder, frame_rate=4)
    assert (result.fps, result.timestamps) == (4, [0, 0.25, 0.5, 0.75, 1, 1.25])
    assert segmenter(folder, frame_rate=4, fps=2).frame_indices == [0, 2, 4]
    path = write_video(tmp_path / "video.mp4", make_frames(6), rate=12)
    assert segmenter(path, frame_rate=4).fps == 12  # the file knows better


def test_floats_in_the_unit_range(segmenter, expected):
    assert_equal(segmenter(make_frames() / 255), expected)
    assert_equal(segmenter(torch.from_numpy(make_frames()).permute(0, 3, 1, 2) / 255), expected)


def test_strict_refuses_damaged_files(segmenter, tmp_path):
    path = encode_video(tmp_path / "cut.mkv", make_frames(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 0 < segmenter(path).num_frames < 30
    with pytest.raises(ValueError, match=r"cut\.mkv is damaged from frame \d+ on: "):
        segmenter(path, strict=True)


@pytest.mark.parametrize("kind", ["webp", "png", "gif", "path"])
def test_animated_images_are_videos(segmenter, tmp_path, kind):
    frames = [Image.fromarray(frame) for frame in make_frames()]
    suffix, options = ("webp", {"lossless": True}) if kind in ("webp", "path") else (kind, {})
    path = tmp_path / f"animation.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 50, 200, 100, 150], **options)
    result = segmenter(path if kind == "path" else Image.open(path))
    assert result.num_frames == FRAMES
    np.testing.assert_allclose(result.timestamps, [0, 0.1, 0.15, 0.35, 0.45], atol=1e-6)
    assert result.fps == pytest.approx(4 / 0.45)  # measured: the file does not state a rate


def test_defaults_of_the_constructor_and_of_a_call(tiny_model, expected):
    segmenter = pipeline("video-instance-segmentation", model=str(tiny_model), device="cpu", max_frames=2)
    assert segmenter(make_frames()).num_frames == 2
    result = segmenter(make_frames(), max_frames=FRAMES)
    assert_equal(result, expected.filter(min_score=0.3))
    paper = segmenter(make_frames(), threshold=0.0, one_label_per_query=False, top_k=7)
    assert len(paper) == 7 and len(set(paper.query_indices.tolist())) <= 5


def test_class_filter(segmenter, tiny_model, expected):
    name = expected.label_names[0]
    others = [other for other in ("cat", "dog", "fox", "hen", "owl") if other != name]
    assert_equal(segmenter(make_frames(), classes=name), expected.filter(labels=name))
    both = segmenter(make_frames(), classes=others), segmenter(make_frames(), classes=[name])
    assert sorted(torch.cat([one.query_indices for one in both]).tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="unknown class 'Cats'; did you mean 'cat'"):
        segmenter("nowhere.mp4", classes=["dog", "Cats"])
    with pytest.raises(ValueError, match="unknown class 'zebra': the classes are cat, dog, fox, hen, owl"):
        pipeline("video-instance-segmentation", model=str(tiny_model), device="cpu", classes="zebra")


def test_half_precision(tiny_model, expected):
    segmenter = pipeline("video-instance-segmentation", model=str(tiny_model), device="cpu", dtype="bfloat16")
    assert segmenter.model.dtype == torch.bfloat16
    result = segmenter(make_frames(), threshold=0.0)
    assert result.scores[0].item() == pytest.approx(expected.scores[0].item(), abs=0.05)


def test_offloaded_weights(tiny_model, expected, tmp_path):
    settings = {"max_memory": {"cpu": 100_000}, "offload_folder": tmp_path}
    segmenter = pipeline(
        "video-instance-segmentation", model=str(tiny_model), device_map="auto", model_kwargs=settings, threshold=0.0
    )
    assert "disk" in segmenter.model.hf_device_map.values()
    assert_equal(segmenter(make_frames()), expected)


def test_saved_and_loaded_again(segmenter, expected, tmp_path):
    segmenter.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"config.json", "model.safetensors", "video_preprocessor_config.json"}
    again = pipeline("video-instance-segmentation", model=str(tmp_path), device="cpu", threshold=0.0)
    assert_equal(again(make_frames()), expected)


@pytest.mark.parametrize(
    "inputs, options, error, message",
    [
        (None, {}, TypeError, "videos must be a path, an array, a tensor or a list of those, got NoneType"),
        ([], {}, ValueError, "videos is empty"),
        ("nowhere.mp4", {}, FileNotFoundError, "video file not found: nowhere.mp4"),
        (np.zeros((2, 3, 4, 5, 6, 7)), {}, ValueError, "expected an array with 4 dimensions"),
        (make_frames(), {"treshold": 0.5}, TypeError, "unexpected keyword argument 'treshold'"),
        (
            make_frames(),
            {"batch_size": 2},
            ValueError,
            "batch_size must be 1: videos are segmented one after the other",
        ),
        (make_frames(), {"fps": 3}, ValueError, "the video does not state its frame rate: pass stride, not fps"),
        (make_frames(), {"decoder": "cv2"}, ValueError, "decoder must be one of None, 'pyav', 'torchcodec', got 'cv2'"),
    ],
)
def test_what_cannot_be_used(segmenter, inputs, options, error, message):
    with pytest.raises(error, match=message):
        segmenter(inputs, **options)


def test_damaged_weights_are_named(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["video_class_predictor.bias"][2] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of the 6 values of video_class_predictor.bias are not finite"):
        pipeline("video-instance-segmentation", model=str(folder), device="cpu")


def test_other_models_and_processors_are_refused(segmenter):
    with pytest.raises(ValueError, match="needs a VitaVideoProcessor as video_processor, got none"):
        VideoInstanceSegmentationPipeline(segmenter.model)
    config = Mask2FormerConfig(backbone_config=segmenter.model.config.backbone_config, hidden_dim=32)
    with torch.device("meta"):
        other = AutoModelForUniversalSegmentation.from_config(config)
    with pytest.raises(ValueError, match="needs a VitaForVideoInstanceSegmentation, got Mask2FormerForUniv"):
        VideoInstanceSegmentationPipeline(other, segmenter.video_processor)


@pytest.mark.slow  # compiling takes minutes
@pytest.mark.timeout(1800)
def test_compiled(tiny_model, expected):
    segmenter = pipeline(
        "video-instance-segmentation", model=str(tiny_model), device="cpu", compile=True, threshold=0.0
    )
    exact, again = (segmenter(make_frames(), mask_features=mode) for mode in ("device", "recompute"))
    assert_equal(again, exact)
    torch.testing.assert_close(exact.scores, expected.scores, rtol=0, atol=1e-4)
    assert torch.equal(exact.labels, expected.labels)
