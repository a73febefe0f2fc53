"""`vita-hf web` without gradio: the code behind the page, and the error if gradio is missing."""

import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vita_hf.commands import main, web
from vita_hf.commands.web_session import Session, find_playback_problem
from vita_hf.inference.options import LOWEST_SCORE
from vita_hf.tracks.instances import VideoInstances
from vita_hf.video.reader import VideoReader


def a_result(num_frames, **fields):
    masks = torch.zeros(2, num_frames, 48, 64, dtype=torch.bool)
    masks[0, :, 10:20, 10:20] = masks[1, 1:, 30:40, 30:50] = True
    return VideoInstances(
        scores=torch.tensor([0.875, 0.5]),
        labels=torch.tensor([1, 0]),
        masks=masks,
        query_indices=torch.tensor([4, 2]),
        size=(48, 64),
        num_frames=num_frames,
        id2label={0: "dog", 1: "cat"},
        **fields,
    )


@pytest.fixture
def video(tmp_path):
    frames = np.full((6, 48, 64, 3), 120, dtype=np.uint8)
    return a_result(6)[[]].render(frames, tmp_path / "my clip.mp4", fps=12)


class Segmenter:
    """Stands for the pipeline: reads every frame of the video, and counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, video, **options):
        self.calls.append(options)
        assert len(list(video.frames())) == 6
        return a_result(3, frame_indices=[0, 2, 4], fps=12.0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sessions").mkdir()
    return tmp_path / "sessions"


def test_a_video_is_segmented_once_for_all_thresholds_and_classes(video, folder):
    segmenter, session = Segmenter(), Session(folder)
    view = session.segment(segmenter, str(video), 0.3, stride=2)
    assert segmenter.calls == [{"threshold": LOWEST_SCORE, "stride": 2, "progress": True}]
    assert VideoInstances.from_json(view.files[2]).summary() == a_result(3, frame_indices=[0, 2, 4]).summary()
    reader = VideoReader(view.overlay)
    assert (reader.count_frames(), reader.fps) == (3, 6)
    assert next(reader.frames()).shape == (7 * 48, 7 * 64, 3)  # labels of small videos can be read
    with Image.open(view.contact_sheet) as image:
        assert image.width == 1280
    assert session.labels == ["cat", "dog"]

    for threshold, labels, tracks in ((0.6, [], [0]), (0.3, ["dog"], [1]), (0.9, [], [])):
        again = session.draw(threshold, labels)
        assert VideoInstances.from_json(again.files[2]).track_ids.tolist() == tracks
        assert session.list_tracks(threshold, labels).count("<tr>") == (2 if tracks else 0)
        assert again.overlay != view.overlay  # or a browser would show the old one
    assert len(segmenter.calls) == 1
    files = sorted(path.name for path in session.folder.rglob("*") if path.is_file())
    assert files == ["contact_sheet.png", "my clip.mp4", "overlay.mp4", "results.json"]  # of the last drawing only


def test_the_video_of_a_session_outlives_the_upload(video, folder):
    session = Session(folder)
    session.segment(Segmenter(), str(video), 0.3)
    video.unlink()
    assert Path(session.draw(0.6).overlay).is_file()


def test_a_stopped_session_keeps_nothing_and_can_go_on(video, folder):
    session = Session(folder)

    def stopping(source, **options):
        frames = source.frames()
        next(frames)
        session.stop()
        return list(frames)

    with pytest.raises(InterruptedError):
        session.segment(stopping, str(video), 0.3)
    assert session.labels == [] and session.list_tracks(0.3) == ""
    with pytest.raises(ValueError, match="segment a video first"):
        session.draw(0.3)
    assert Path(session.segment(Segmenter(), str(video), 0.3).overlay).is_file()


def test_closing_a_session_ends_what_runs_and_removes_its_files(video, folder):
    session, started, ended = Session(folder), threading.Event(), []

    def endless(source, **options):
        while True:
            for _ in source.frames():
                started.set()

    def run():
        try:
            session.segment(endless, str(video), 0.3)
        except InterruptedError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(30)
    session.close()
    assert list(folder.iterdir()) == []
    thread.join(30)
    assert len(ended) == 1
    with pytest.raises(InterruptedError, match="the session has ended"):
        session.draw(0.3)


def test_errors_do_not_show_paths(folder, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("This is no video.")
    with pytest.raises(ValueError, match="cannot be decoded") as error:
        Session(folder).segment(Segmenter(), str(text), 0.3)
    message = web.without_paths(str(error.value), folder)
    assert message.startswith("text.mp4 cannot be decoded as a video") and str(tmp_path) not in message


@pytest.mark.parametrize("encoder, problem", [("libvpx-vp9", None), ("libsvtav1", None), ("mpeg4", "MPEG4")])
def test_what_browsers_may_not_play_is_said(tmp_path, encoder, problem):
    path = str(tmp_path / "video.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream(encoder, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in np.zeros((3, 64, 64, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    text = f"Browsers may not play this video ({problem}). It can be segmented all the same."
    assert find_playback_problem(path) == (problem and text)


def test_that_an_upload_is_no_video_is_said(tmp_path):
    (tmp_path / "text.mp4").write_text("This is no video.")
    assert find_playback_problem(str(tmp_path / "text.mp4")) == "This file is damaged, or no video."


def test_without_gradio(tiny_model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match="1"):
        main.main(["web", "--model", str(tiny_model)])
    assert capsys.readouterr().err == "error: vita-hf web needs the gradio package: pip install gradio\n"


def test_device_and_dtype_reach_the_model(tiny_model, monkeypatch):
    models = []

    def build_page(segmenter, folder):
        models.append(segmenter.model)
        raise OSError("no port is free")

    monkeypatch.setattr(web, "build_page", build_page)
    monkeypatch.setattr(web, "SHIPPED_MODEL", tiny_model)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    for arguments in ([], ["--model", str(tiny_model), "--device", "meta", "--dtype", "bfloat16"]):
        with pytest.raises(SystemExit):
            main.main(["web", *arguments])
    assert models[0].dtype == torch.float32
    assert (models[1].device.type, models[1].dtype) == ("meta", torch.bfloat16)
