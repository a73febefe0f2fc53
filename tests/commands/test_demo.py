"""The shipped model, and `vita-hf demo`."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vita_hf import VideoInstances
from vita_hf.commands.main import main
from vita_hf.data.synthetic import CATEGORY_NAMES, SyntheticVideo, annotate, annotation_file_content
from vita_hf.inference.loading import SHIPPED_MODEL, load_model
from vita_hf.pipeline_vita import VideoInstanceSegmentationPipeline
from vita_hf.scoring import VisEvaluator

HELD_OUT = Path(__file__).parents[2] / "benchmarks" / "synthetic-heldout.json"


@pytest.fixture(scope="module")
def segmenter():
    return VideoInstanceSegmentationPipeline(*load_model(SHIPPED_MODEL), device="cpu", progress=False)


def test_shipped_model_is_small_and_loads_as_float32(segmenter):
    assert segmenter.model.dtype.itemsize == 4
    assert (SHIPPED_MODEL / "model.safetensors").stat().st_size < 8_000_000
    assert tuple(segmenter.model.config.id2label.values()) == CATEGORY_NAMES
    card = (SHIPPED_MODEL / "README.md").read_text()
    for part in ("tiny-synthetic", "## Learning curve", "## Results", "96 videos", "pipeline_tag: image-segmentation"):
        assert part in card


def test_shipped_model_finds_objects_it_has_never_seen(segmenter):
    """Twelve videos of a new seed. An untrained model has an AP of 0 on them."""
    truth, results = [], []
    for index in range(12):
        video = SyntheticVideo(77, index, length=12)
        frames, masks = zip(*video)
        truth.append(annotate(video, index + 1, [f"{t}" for t in range(12)], masks))
        tracks = segmenter(list(map(Image.fromarray, frames)), one_label_per_query=False, threshold=0.0, top_k=10)
        results += tracks.to_ytvis(index + 1)
    evaluator = VisEvaluator(annotation_file_content(truth, "test"))
    evaluator.add(results)
    scores = evaluator.compute()
    assert scores["AP"] > 0.4 and scores["AP50"] > 0.6


def test_held_out_truth_comes_from_the_generator():
    """A pixel at an edge may differ on another processor."""
    truth = json.loads(HELD_OUT.read_text())
    assert len(truth["videos"]) == 96 and {video["length"] for video in truth["videos"]} == {24}
    for index in range(4):
        video = SyntheticVideo(1000, index, length=24)
        masks = [frame_masks for _, frame_masks in video]
        _, expected = annotate(video, index + 1, truth["videos"][index]["file_names"], masks)
        written = [annotation for annotation in truth["annotations"] if annotation["video_id"] == index + 1]
        assert [a["category_id"] for a in written] == [a["category_id"] for a in expected]
        for annotation, expected_annotation in zip(written, expected):
            for area, expected_area in zip(annotation["areas"], expected_annotation["areas"]):
                assert abs((area or 0) - (expected_area or 0)) <= 2


def test_demo(tmp_path, capsys):
    folder = tmp_path / "demo"
    main(["demo", "--output", str(folder), "--length", "12"])
    printed = capsys.readouterr().out
    written = sorted(path.name for path in folder.iterdir())
    assert written == ["contact_sheet.png", "overlay.mp4", "results.json", "truth.json", "video.mp4"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]

    result = VideoInstances.from_json(folder / "results.json")
    assert result.num_frames == 12 and len(result) > 0 and float(result.scores.min()) >= 0.3
    for track in result.summary():
        assert f"#{track['track_id']} {track['label']:9} {track['score']:.2f}" in printed
    truth = json.loads((folder / "truth.json").read_text())
    for annotation in truth["annotations"]:
        assert CATEGORY_NAMES[annotation["category_id"] - 1] in printed.split("Ground truth:")[1].splitlines()[0]
    assert "AP50 " in printed and "vita-hf predict clip.mp4 --model MODEL" in printed

    # The overlay plays. It differs from the video where the tracks are, and hardly elsewhere.
    with av.open(str(folder / "overlay.mp4")) as overlay, av.open(str(folder / "video.mp4")) as video:
        overlaid = [frame.to_ndarray(format="rgb24") for frame in overlay.decode(video=0)]
        plain = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(overlaid) == len(plain) == 12
    assert overlaid[0].shape == (4 * 96, 4 * 128, 3)
    inside, outside = [], []
    for time in range(12):
        enlarged = np.asarray(Image.fromarray(plain[time]).resize((512, 384), Image.Resampling.BILINEAR))
        changed = np.abs(overlaid[time].astype(int) - enlarged).mean(-1)
        mask = np.kron(result.masks_at(time).any(0).numpy(), np.ones((4, 4), bool))
        inside.append(changed[mask].mean())
        outside.append(np.median(changed[~mask]))
    assert np.mean(inside) > 4 * np.mean(outside)

    (folder / "notes.txt").write_text("mine")
    (folder / "results.json").rename(folder / ".unfinished")  # as if an earlier --overwrite had been killed
    main(["demo", "--output", str(folder), "--length", "3", "--overwrite"])
    capsys.readouterr()
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / ".unfinished").exists()
    assert VideoInstances.from_json(folder / "results.json").num_frames == 3
    with pytest.raises(SystemExit, match="1"):
        main(["demo", "--output", str(folder)])
    assert "exists: choose another --output, or --overwrite an earlier demo" in capsys.readouterr().err
