"""`vita-hf predict`: what it writes, what it skips, what it shares out, and what is left when it is stopped."""

import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vita_hf.commands.predict
from helpers.videos import make_frames, write_images, write_video
from vita_hf import VideoInstances
from vita_hf.commands import main as cli
from vita_hf.commands.predict import find_videos, name_results
from vita_hf.video.reader import VideoReader

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, tiny_model):
    """A folder with the model, a video, and the same frames as images."""
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(tiny_model, folder / "model")
    write_video(folder / "clip.mp4", make_frames())
    write_images(folder / "frames", make_frames())
    return folder


@pytest.fixture
def predict(workspace, tmp_path, monkeypatch, capfd):
    """Run the command in this process, in a folder of its own; gives exit code and what it printed."""
    for name in ("model", "clip.mp4", "frames"):
        (tmp_path / name).symlink_to(workspace / name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model="model"):
        capfd.readouterr()
        code = 0
        options = ["--device", "cpu"] if model is None else ["--device", "cpu", "--model", model]
        try:
            cli.main(["predict", *map(str, arguments), *options])
        except SystemExit as error:
            code = error.code
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_what_is_written(predict):
    code, printed, _ = predict("clip.mp4", "--threshold", 0.5)
    assert code == 0 and names("out") == ["clip"]
    assert names("out/clip") == ["all_tracks.json", "contact_sheet.png", "overlay.mp4", "results.json", "run.json"]
    result = VideoInstances.from_json("out/clip/results.json")
    assert (result.num_frames, result.size, result.fps) == (5, (48, 64), 12)
    assert 0 < len(result) < 5 and result.scores.min() >= 0.5
    assert f"clip: {len(result)} tracks in 5 frames, written to out/clip" in printed
    assert f"#0 {result.label_names[0]} {result.scores[0]:.2f}" in printed
    with av.open("out/clip/overlay.mp4") as container:
        overlay = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(overlay) == 5 and overlay[0].shape == (48, 64, 3)
    assert np.abs(overlay[0].astype(int) - make_frames()[0]).mean() > 5  # something is drawn
    assert Image.open("out/clip/contact_sheet.png").width == 1280


@pytest.mark.parametrize("options, passes", [((), 2), (("--json-only",), 1), (("--mask-features", "recompute"), 3)])
def test_a_video_is_opened_once_and_decoded_once_per_pass(predict, monkeypatch, options, passes):
    """One pass for the network and one for both kinds of pictures; only recomputing needs another."""
    opened, decoded = [], []
    initialize, decode = VideoReader.__init__, VideoReader._decode_pyav

    def count_opened(reader, *arguments, **options):
        opened.append(reader)
        initialize(reader, *arguments, **options)

    def count_decoded(reader):
        for frame in decode(reader):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(VideoReader, "__init__", count_opened)
    monkeypatch.setattr(VideoReader, "_decode_pyav", count_decoded)
    code, _, errors = predict("clip.mp4", *options)
    assert code == 0, errors
    assert (len(opened), len(decoded)) == (1, 5 * passes)


def test_what_is_finished_is_skipped(predict):
    assert predict("clip.mp4", "--json-only")[0] == 0
    assert names("out/clip") == ["results.json", "run.json"]
    written = Path("out/clip/results.json").stat().st_mtime_ns
    code, printed, _ = predict("clip.mp4", "frames", "--json-only")
    assert code == 0 and "clip: already finished, skipped (out/clip)" in printed and "frames: " in printed
    assert Path("out/clip/results.json").stat().st_mtime_ns == written
    code, _, errors = predict("clip.mp4", "--json-only", "--max-frames", 2)
    assert code == 1 and errors.endswith(
        "error: out/clip holds results of another run (max_frames differ): choose another output folder, or remove or "
        "overwrite this one\n"
    )
    assert predict("clip.mp4", "--json-only", "--max-frames", 2, "--overwrite")[0] == 0
    assert VideoInstances.from_json("out/clip/results.json").num_frames == 2
    Path("out/frames/run.json").unlink()
    code, _, errors = predict("frames", "--json-only", "--overwrite")
    assert code == 1 and "out/frames exists and was not written by vita-hf predict" in errors


@pytest.fixture
def without_model(monkeypatch):
    """From now on, no model can be loaded."""

    def start():
        monkeypatch.setattr(vita_hf.commands.predict, "load_model", lambda *_, **__: pytest.fail("a model is loaded"))

    return start


def test_another_threshold_or_class_only_draws_again(predict, without_model):
    settings = (["--threshold", 0.9], ["--threshold", 0.5], ["--threshold", 0.05, "--classes", "dog", "fox"])
    for index, options in enumerate(settings):
        assert predict("clip.mp4", *options, "-o", f"fresh-{index}")[0] == 0
    assert predict("clip.mp4", "--threshold", 0.2)[0] == 0
    without_model()
    counts = []
    for index, options in enumerate(settings):
        code, printed, errors = predict("clip.mp4", *options)
        assert code == 0 and "clip: " in printed, errors
        got, fresh = Path("out/clip"), Path(f"fresh-{index}/clip")
        result, expected = (VideoInstances.from_json(folder / "results.json") for folder in (got, fresh))
        assert (result.masks, result.scores.tolist()) == (expected.masks, expected.scores.tolist())
        assert result.labels.tolist() == expected.labels.tolist()
        assert VideoReader(got / "overlay.mp4").count_frames() == 5
        assert (got / "contact_sheet.png").read_bytes() == (fresh / "contact_sheet.png").read_bytes()
        counts.append(len(result))
    assert counts[0] == 0 < counts[1] < 5 and 0 < counts[2] < 5
    assert "already finished" in predict("clip.mp4", *settings[2])[1]


def test_what_was_not_kept_is_not_drawn(predict, without_model):
    assert predict("clip.mp4", "--threshold", 0.01, "--json-only")[0] == 0
    without_model()
    assert predict("clip.mp4", "--threshold", 0.4, "--json-only")[0] == 0
    # Pictures are added, but not removed unasked.
    assert predict("clip.mp4", "--threshold", 0.4)[0] == 0 and Path("out/clip/overlay.mp4").is_file()
    assert "(json_only, threshold differ)" in predict("clip.mp4", "--threshold", 0.5, "--json-only")[2]
    assert "(threshold differ)" in predict("clip.mp4", "--threshold", 0)[2]
    assert predict("clip.mp4", "--threshold", 0.01)[0] == predict("clip.mp4", "--threshold", 0.4)[0] == 0
    record = json.loads(Path("out/clip/run.json").read_bytes())
    assert record["threshold"] == 0.4 and record.pop("lowest_score") == 0.01
    # A folder of an earlier version, which kept only the chosen tracks.
    Path("out/clip/run.json").write_text(json.dumps(record))
    assert "(threshold differ)" in predict("clip.mp4", "--threshold", 0.5)[2]
    assert "already finished" in predict("clip.mp4", "--threshold", 0.4)[1]


def test_pictures_are_removed_without_the_model(predict, without_model):
    assert predict("clip.mp4", "--threshold", 0.5)[0] == 0
    without_model()
    assert predict("clip.mp4", "--threshold", 0.5, "--json-only", "--overwrite")[0] == 0
    assert names("out/clip") == ["all_tracks.json", "results.json", "run.json"]


def test_files_that_were_removed_are_written_again(predict, without_model):
    assert predict("clip.mp4", "--threshold", 0.05, "-o", "fresh")[0] == 0
    assert predict("clip.mp4", "--threshold", 0.55)[0] == 0 and Path("out/clip/all_tracks.json").is_file()
    # Without all tracks, a lower threshold cannot be served from the result.
    Path("out/clip/all_tracks.json").unlink()
    assert "(threshold differ)" in predict("clip.mp4", "--threshold", 0.05)[2]
    assert "already finished" in predict("clip.mp4", "--threshold", 0.55)[1]
    assert predict("clip.mp4", "--threshold", 0.05, "--overwrite")[0] == 0
    results, fresh = (VideoInstances.from_json(f"{folder}/clip/results.json") for folder in ("out", "fresh"))
    assert len(results) == len(fresh) == 5
    without_model()
    Path("out/clip/overlay.mp4").unlink()
    assert predict("clip.mp4", "--threshold", 0.05)[0] == 0 and Path("out/clip/overlay.mp4").is_file()
    Path("out/clip/overlay.mp4").unlink()
    assert predict("clip.mp4", "--threshold", 0.55)[0] == 0 and Path("out/clip/overlay.mp4").is_file()
    Path("out/clip/results.json").unlink()
    assert predict("clip.mp4", "--threshold", 0.55)[0] == 0 and Path("out/clip/results.json").is_file()


def test_classes_count_before_the_limit_of_tracks(predict):
    """The two best tracks of a class are more than those of this class among the two best tracks."""
    assert predict("clip.mp4", "--threshold", 0.05, "--json-only", "--top-k", 2)[0] == 0
    code, _, errors = predict("clip.mp4", "--threshold", 0.05, "--json-only", "--top-k", 2, "--classes", "dog")
    assert code == 1 and "(classes differ)" in errors


def test_frames_and_settings(predict):
    arguments = ("--fps", 4, "--max-frames", 2, "--threshold", 0, "--top-k", 6, "--several-labels", "--json-only")
    assert predict("clip.mp4", *arguments, "-o", "deep/folder")[0] == 0
    result = VideoInstances.from_json("deep/folder/clip/results.json")
    assert result.frame_indices == [0, 3] and len(result) == 6


def test_a_rate_for_folders_of_images(predict):
    code, _, errors = predict("frames", "--frame-rate", 4, "--threshold", 0)
    assert code == 0, errors
    assert VideoInstances.from_json("out/frames/results.json").timestamps == [0, 0.25, 0.5, 0.75, 1]
    assert VideoReader("out/frames/overlay.mp4").fps == 4
    assert "out/frames" in predict("frames", "--threshold", 0)[2]  # another rate is another result


def test_a_folder_of_videos_with_a_picture(predict, tmp_path, caplog):
    (tmp_path / "trip").mkdir()
    for name in ("a.mp4", "b.MTS"):
        shutil.copy("clip.mp4", tmp_path / "trip" / name)
    Image.new("RGB", (64, 48)).save(tmp_path / "trip" / "cover.jpg")
    code, _, errors = predict("trip", "--json-only")
    assert code == 0, errors
    assert names("out") == ["a", "b.MTS"]
    assert "trip: 1 of its entries are left out: cover.jpg" in caplog.text


@pytest.mark.parametrize("name", ["-", "0", "rtsp://camera/1"])
def test_live_sources_are_not_missing_files(predict, name):
    code, _, errors = predict(name, "--json-only")
    assert code == 1
    assert errors.startswith(f"error: {name} cannot be read: videos are files, folders and http(s) addresses")


def test_a_failing_video_does_not_stop_the_others(predict):
    Path("broken.mp4").write_text("This is no video.")
    code, printed, errors = predict("broken.mp4", "clip.mp4", "--json-only")
    assert code == 1 and names("out") == ["clip"]
    assert "clip: " in printed and "error: broken.mp4 cannot be decoded as a video" in errors
    assert errors.endswith("1 of 2 videos failed: broken\n")


def test_a_class_filter(predict):
    arguments = ("clip.mp4", "--json-only", "--threshold", 0, "--max-frames", 1)
    code, printed, _ = predict(*arguments, "-o", "all")
    assert code == 0 and "clip: 5 tracks in 1 frame, written to all/clip" in printed
    every = VideoInstances.from_json("all/clip/results.json")
    assert predict(*arguments, "--classes", "dog", "cat")[0] == 0
    chosen = VideoInstances.from_json("out/clip/results.json")
    expected = every.filter(labels=["cat", "dog"])
    assert chosen.query_indices.tolist() == expected.query_indices.tolist()
    code, _, errors = predict("clip.mp4", "frames", "--classes", "cat", "dogg", "-o", "other")
    assert (code, errors) == (1, "error: unknown class 'dogg'; did you mean 'dog'?\n")


def test_shared_out_over_processes(predict, monkeypatch):
    for index in range(5):
        write_images(Path(f"many-{index}"), make_frames(1))
    Path("many").mkdir()
    for index in range(5):
        Path(f"many-{index}").rename(f"many/{index}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert predict("many", "--json-only")[0] == 0 and names("out") == ["1", "3"]
    monkeypatch.setenv("RANK", "0")
    assert predict("many", "--json-only")[0] == 0 and names("out") == ["0", "1", "2", "3", "4"]


def test_which_videos_arguments_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two", "two/frames", "empty"):
        Path(folder).mkdir()
    files = ("one/clip.mp4", "two/clip.mp4", "two/clip.AVI", "two/notes.txt", "two/.hidden.mp4", "two/frames/1.png")
    for name in files:
        Path(name).touch()
    address = "https://host/a%20b/clip.webm?x=1"
    other = address.replace("clip", "other")
    videos = find_videos(["one/clip.mp4", "two/frames", other])
    assert list(videos.items()) == [("clip", "one/clip.mp4"), ("frames", "two/frames"), ("other.webm", other)]
    assert find_videos(["two", "./two/clip.mp4", address]) == {
        "clip.AVI": "two/clip.AVI",
        "clip": "two/clip.mp4",
        "frames": "two/frames",
        "clip.webm": address,
    }
    with pytest.raises(FileNotFoundError, match="no such video: three"):
        find_videos(["one/clip.mp4", "three"])
    with pytest.raises(ValueError, match="the folder empty holds no images, no videos and no folders of images"):
        find_videos(["empty"])
    for same, message in {
        ("one", "two"): r"one/clip.mp4 and two/clip.mp4 would both be written to clip: pass them in separate calls",
        (address, f"{address}&token=7"): r"https://host/a%20b/clip.webm and .* would both be written to clip.webm",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            find_videos([*same])
        assert "token" not in str(caught.value)


NAMES = {
    "clip.mp4": "clip",
    "dir/CLIP.MP4": "CLIP",
    "dir/b.avi": "b.avi",
    "link.mp4": "link",
    "frames": "frames",
    "frames/": "frames",
    "frames/.": "frames",
    "of.mp4": "of.mp4",
    "https://host/a%20b/clip.webm?x=1": "clip.webm",
    "https://me:secret@host:80/?token=1": "host",
    "https://host/..": r"unnamed-\w{8}",
    "https://host/..%2F..%2Fetc%2Fcron.d": "cron.d",
    "https://host/a%5C..%5Cb.mp4": r"a_\.\._b-\w{8}",
    "dir/...mp4": r"unnamed-\w{8}",
    "dir/....mp4": r"unnamed-\w{8}",
    "dir/.mp4": r"unnamed-\w{8}",
    "dir/nul.mp4": r"_nul-\w{8}",
    f"dir/{'n' * 251}.mp4": r"n{191}-\w{8}",
}


@pytest.mark.parametrize("video", NAMES)
def test_names_of_results(tmp_path, monkeypatch, video):
    """They depend on the given name alone, and are never a way out of the output directory."""
    monkeypatch.chdir(tmp_path)
    for folder in ("frames", "of.mp4"):
        Path(folder).mkdir()
    Path("link.mp4").symlink_to("clip.mp4")
    assert re.fullmatch(NAMES[video], name_results(video))


def test_a_name_of_dots_harms_nothing_beside_the_output(predict):
    Path("in").mkdir()
    shutil.copy("clip.mp4", "in/...mp4")
    before = names(".")
    assert predict("in/...mp4", "--json-only")[0] == 0
    assert names(".") == sorted([*before, "out"])
    (name,) = names("out")
    assert name.startswith("unnamed-") and names(f"out/{name}") == ["results.json", "run.json"]


def test_names_do_not_depend_on_the_other_videos(predict):
    Path("in").mkdir()
    shutil.copy("clip.mp4", "in/b.mp4")
    assert predict("in/b.mp4", "--json-only")[0] == 0
    shutil.copy("clip.mp4", "in/b.avi")
    code, printed, _ = predict("in", "--json-only")
    assert code == 0 and names("out") == ["b", "b.avi"] and "b: already finished, skipped" in printed


def test_a_video_is_known_by_its_content(predict):
    write_video(Path("moved.mp4"), make_frames())
    assert predict("moved.mp4", "--json-only")[0] == 0
    os.utime("moved.mp4", (1, 1))
    Path("elsewhere").mkdir()
    Path("moved.mp4").rename("elsewhere/moved.mp4")
    code, printed, _ = predict("elsewhere/moved.mp4", "--json-only")
    assert code == 0 and "moved: already finished" in printed
    path = Path("elsewhere/moved.mp4")
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    code, _, errors = predict("elsewhere/moved.mp4", "--json-only")
    assert code == 1 and "holds results of another run (sha256 differ)" in errors


def test_a_folder_of_frames_is_known_by_the_content_of_all(predict):
    write_images(Path("film"), make_frames())
    assert predict("film", "--json-only")[0] == 0
    for frame in Path("film").iterdir():
        os.utime(frame, (1, 1))
    assert "film: already finished" in predict("film", "--json-only")[1]
    first, last = Path("film/0.png").read_bytes(), Path("film/4.png").read_bytes()
    Path("film/0.png").write_bytes(last), Path("film/4.png").write_bytes(first)
    assert "(sha256 differ)" in predict("film", "--json-only")[2]


def test_overwriting_replaces_only_what_the_command_writes(predict):
    assert predict("clip.mp4")[0] == 0
    Path("out/clip/notes.txt").write_text("mine")
    Path("out/clip/drafts").mkdir()
    assert predict("clip.mp4", "--json-only", "--threshold", 0.9, "--overwrite")[0] == 0
    assert names("out/clip") == ["all_tracks.json", "drafts", "notes.txt", "results.json", "run.json"]
    assert names("out") == ["clip"]
    assert Path("out/clip/notes.txt").read_text() == "mine"
    assert len(VideoInstances.from_json("out/clip/results.json")) == 0


def test_a_folder_whose_files_were_being_replaced_is_done_again(predict):
    assert predict("clip.mp4", "--json-only")[0] == 0
    Path("out/clip/run.json").rename("out/clip/.unfinished")
    Path("out/clip/results.json").write_text("half")
    assert predict("clip.mp4", "--json-only")[0] == 0
    assert names("out/clip") == ["results.json", "run.json"]
    assert VideoInstances.from_json("out/clip/results.json").num_frames == 5
    Path("out/clip/results.json").unlink()
    assert predict("clip.mp4", "--json-only")[0] == 0 and names("out/clip") == ["results.json", "run.json"]


@pytest.mark.parametrize("record", ["{}", "[]"])
def test_a_record_of_something_else_is_not_overwritten(predict, record):
    Path("out/clip").mkdir(parents=True)
    Path("out/clip/run.json").write_text(record)
    code, _, errors = predict("clip.mp4", "--json-only", "--overwrite")
    assert code == 1 and "out/clip" in errors and names("out/clip") == ["run.json"]


def test_two_calls_for_one_video_at_once(predict, monkeypatch):
    """The second to finish finds the results of the first, and leaves them alone."""
    segment_video = vita_hf.commands.predict.segment_video
    calls = []

    def segment_twice(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            assert predict("clip.mp4")[0] == 0
        return segment_video(*arguments)

    monkeypatch.setattr("vita_hf.commands.predict.segment_video", segment_twice)
    assert predict("clip.mp4")[0] == 0 and len(calls) == 2
    assert names("out") == ["clip"]
    assert names("out/clip") == ["contact_sheet.png", "overlay.mp4", "results.json", "run.json"]


def test_if_drawing_fails_the_tracks_are_kept(predict, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VideoInstances, "render", full_disk)
    code, _, errors = predict("clip.mp4")
    assert code == 1 and names("out/clip") == [".unfinished", "results.json"]
    assert "clip.mp4: the tracks are in out/clip/results.json, but drawing them failed: No space" in errors
    assert VideoInstances.from_json("out/clip/results.json").num_frames == 5


@pytest.fixture
def server(tmp_path):
    """Serve the folder of the test; gives the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_addresses_are_known_by_their_content_and_secrets_are_not_written(predict, server):
    code, printed, errors = predict(f"http://me:pass@{server}/clip.mp4?token=one", "--json-only")
    assert code == 0, errors
    code, again, more = predict(f"http://me:pass@{server}/clip.mp4?token=two#three", "--json-only")
    assert code == 0 and "clip: already finished, skipped" in again
    assert json.loads(Path("out/clip/run.json").read_text())["video"] == f"http://{server}/clip.mp4"
    code, _, large = predict(f"http://{server}/clip.mp4?token=two", "-o", "new", "--max-download", 1e-6)
    assert code == 1 and f"cannot download http://{server}/clip.mp4: expected at most 1074 bytes, but the file" in large
    shutil.copy("frames/0.png", "image.png")
    assert predict(f"http://{server}/image.png", "--json-only")[0] == 0
    assert json.loads(Path("out/image.png/run.json").read_text())["bytes"] == Path("image.png").stat().st_size
    Path("text.mp4").write_text("Not a video.")
    code, _, failed = predict(f"http://me:pass@{server}/text.mp4?token=two", "--json-only")
    assert code == 1 and f"http://{server}/text.mp4 cannot be decoded as a video" in failed
    code, _, missing = predict(f"http://me:pass@{server}/none.mp4?token=two", "--json-only")
    assert code == 1 and f"cannot download http://{server}/none.mp4: HTTP Error 404" in missing
    written = "".join(path.read_text() for path in Path("out").rglob("*.json"))
    for text in (printed, again, written, errors, more, failed.replace(str(Path.cwd()), ""), missing):
        assert "token" not in text and "pass" not in text


def test_without_a_model_the_shipped_one_is_used(predict, monkeypatch, workspace):
    monkeypatch.setattr("vita_hf.commands.predict.SHIPPED_MODEL", workspace / "model")
    code, printed, _ = predict("clip.mp4", "--json-only", model=None)
    assert code == 0
    assert (
        "No --model given: using the shipped tiny model, which knows only the shapes of its synthetic videos" in printed
    )


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["predict", "--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "vita-hf predict clip.mp4 --model" in printed and "accelerate launch" in printed


# ------------------------------------------------------------ inputs that are broken


def cut_off(path):
    """The index of an mp4 is at its end: nothing of it can be read."""
    write_video(path, make_frames(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_off_behind_its_index(path, extra=5):
    """Its index in front, an mp4 of 40 frames can be read up to where it ends: 5 bytes into the 21st."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[19] + extra])


def without_packets(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = 48, 64
        container.start_encoding()


def only_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for _ in range(10):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.rate = 8000
            container.mux(stream.encode(sound))
        container.mux(stream.encode())


def of_different_sizes(path):
    write_images(path, make_frames())
    Image.new("RGB", (64, 47)).save(path / "3.png")


def of_16_bits(path):
    path.mkdir()
    Image.fromarray(np.full((48, 64), 40_000, dtype=np.uint16)).save(path / "0.png")


def of_damaged_images(path):
    write_images(path, make_frames())
    content = (path / "2.png").read_bytes()
    (path / "2.png").write_bytes(content[:100])


BROKEN = {
    "cut.mp4": (cut_off, r"cut\.mp4 cannot be decoded as a video: .*Invalid data"),
    "empty.mp4": (lambda path: path.touch(), r"empty\.mp4 cannot be decoded as a video: .*Invalid data"),
    "frameless.avi": (without_packets, r"frameless\.avi has no frames"),
    "sound.mp4": (only_sound, r"sound\.mp4 cannot be decoded as a video: it has no video stream"),
    "text.mp4": (
        lambda path: path.write_text("Not a video."),
        r"text\.mp4 cannot be decoded as a video: .*Invalid data",
    ),
    "sizes": (
        of_different_sizes,
        r"sizes, frame 3 \(sizes/3\.png\): all frames of a video must have one size; this one is 47×64",
    ),
    "sixteen": (of_16_bits, r"sixteen, frame 0 \(sixteen/0\.png\): expected 8 bits per channel, .* mode 'I;16'"),
    "damaged": (of_damaged_images, r"damaged/2\.png cannot be decoded as an image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_videos(predict, name):
    make, message = BROKEN[name]
    make(Path(name))
    code, _, errors = predict(name)
    (line,) = [line for line in errors.splitlines() if "error" in line.lower()]
    assert code == 1
    assert line.startswith("error: ") and re.search(message, line), line
    assert not Path("out").exists() or names("out") == []


def gray(path):
    path.mkdir()
    for index, frame in enumerate(make_frames()):
        Image.fromarray(frame).convert("L").save(path / f"{index}.png")


def with_alpha(path):
    path.mkdir()
    for index, frame in enumerate(make_frames()):
        Image.fromarray(np.dstack([frame, frame[..., :1]])).save(path / f"{index}.png")


UNUSUAL = {
    "one-frame": (lambda path: write_images(path, make_frames(1)), 1, (48, 64)),
    "one-pixel": (lambda path: write_images(path, make_frames(3, 1, 1)), 3, (1, 1)),
    "gray": (gray, 5, (48, 64)),
    "alpha": (with_alpha, 5, (48, 64)),
    "odd.mp4": (lambda path: write_video(path, make_frames(3, 33, 35)), 3, (33, 35)),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_videos(predict, name):
    make, frames, size = UNUSUAL[name]
    make(Path(name))
    code, _, errors = predict(name, "--threshold", 0)
    assert code == 0, errors
    folder = Path("out") / name.split(".")[0]
    result = VideoInstances.from_json(folder / "results.json")
    assert (result.num_frames, result.size, len(result)) == (frames, size, 5)
    assert (folder / "overlay.mp4").is_file() and (folder / "contact_sheet.png").is_file()


@pytest.mark.parametrize("extra, reason", [(0, "the file ends after 2.00 of 4.00 s"), (5, "data is missing")])
def test_of_a_file_that_is_cut_off_the_rest_is_used(predict, caplog, extra, reason):
    cut_off_behind_its_index(Path("cut.mp4"), extra)
    assert predict("cut.mp4", "--json-only")[0] == 0
    assert VideoInstances.from_json("out/cut/results.json").num_frames == 20
    message = f"cut.mp4 is damaged from frame 20 on: {reason}"
    assert caplog.text.count(message) == 1
    code, _, errors = predict("cut.mp4", "--json-only", "--strict", "-o", "strict")
    assert code == 1 and errors.startswith(f"error: {message}")


def test_a_missing_codec_package(predict, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, errors = predict("clip.mp4")
    assert code == 1
    assert "error: video files need the av package: pip install av" in errors
    with monkeypatch.context() as patched:
        patched.setattr("vita_hf.commands.predict.load_model", None)  # not reached
        assert "Overlays need it, too: --json-only leaves them out." in predict("frames")[2]
    assert predict("frames", "--json-only")[0] == 0


@pytest.mark.parametrize("output", ["notes.txt", "notes.txt/deep", "n" * 300])
def test_outputs_that_cannot_be_written_fail_before_the_model_is_loaded(predict, monkeypatch, output):
    Path("notes.txt").write_text("mine")
    monkeypatch.setattr("vita_hf.commands.predict.load_model", None)
    code, _, errors = predict("clip.mp4", "-o", output)
    assert code == 1 and re.match(r"error: (cannot write to the folder notes|.*File name too long)", errors), errors
    assert Path("notes.txt").read_text() == "mine"


def test_a_disk_without_space_fails_before_segmenting(predict, monkeypatch):
    monkeypatch.setattr("vita_hf.commands.predict.segment_video", None)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10_000, 9_000, 1_000))
    code, _, errors = predict("clip.mp4")
    message = "not enough space in out: 0 MiB are free, about 1 MiB are needed; choose another --output, or pass --json"
    assert code == 1 and f"error: {message}" in errors and not Path("out").exists()


# ------------------------------------------------------------ models that are broken


def edit_weights(folder, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def spoil(weights):
    weights["model.object_decoder.layernorm.weight"][3] = torch.nan


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


MODELS = {
    "no processor": (
        lambda folder: (folder / "video_preprocessor_config.json").unlink(),
        "broken has no processor: video_preprocessor_config.json is missing",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "broken holds no model: config.json is missing"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "broken has no weights that can be loaded"),
    "NaN in weights": (
        lambda folder: edit_weights(folder, spoil),
        "the model's weights are damaged: 1 of the 32 values of model.object_decoder.layernorm.weight are not finite",
    ),
    "half the weights": (
        lambda folder: edit_weights(folder, lambda weights: weights.pop("video_class_predictor.bias")),
        "broken lacks 1 of the model's weights, for example video_class_predictor.bias",
    ),
    "a cut off file": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9999]),
        "the weights of broken cannot be read",
    ),
    "another architecture": (
        lambda folder: edit_config(folder, model_type="detr"),
        "broken is a model of type 'detr', expected 'vita'",
    ),
    "other sizes": (lambda folder: edit_config(folder, num_queries=11), "the weights of broken cannot be read"),
    "a broken config": (
        lambda folder: (folder / "config.json").write_text("{"),
        "the configuration of broken cannot be",
    ),
    "a wrong field": (
        lambda folder: edit_config(folder, num_queries=0),
        "the configuration of broken cannot be loaded: config.json: num_queries: expected",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_broken_models(predict, workspace, case):
    spoil_model, message = MODELS[case]
    shutil.copytree(workspace / "model", "broken")
    spoil_model(Path("broken"))
    code, _, errors = predict("clip.mp4", model="broken")
    assert code == 1
    assert errors.splitlines()[-1].startswith(f"error: {message}"), errors
    assert not Path("out").exists()


def test_a_mistyped_model(predict, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect to the Hub.")

    monkeypatch.setattr("vita_hf.inference.loading.AutoConfig.from_pretrained", unreachable)
    code, _, errors = predict("clip.mp4", model="modle")
    assert (code, errors) == (1, "error: modle: there is no such directory; did you mean 'model'?\n")
    code, _, errors = predict("clip.mp4", model="./modle")
    assert (code, errors) == (1, "error: no such model directory: ./modle; did you mean 'model'?\n")
    code, _, errors = predict("clip.mp4", model="me/another")
    assert errors.startswith("error: me/another: there is no such directory, and no such model of the Hub: ")
    assert "We couldn't connect to the Hub." in errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["clip.mp4", "--device", "gpu"], "device 'gpu' cannot be used on this machine: Expected one of cpu, cuda"),
        (["clip.mp4", "--device", "mps"], "device 'mps' cannot be used on this machine: "),
        (["clip.mp4", ""], "expected a video, got an empty name"),
        (["clip.mp4", "--model", ""], "expected a model directory or Hub id, got an empty name"),
    ],
)
def test_arguments_that_cannot_be_used(predict, capfd, arguments, message):
    with pytest.raises(SystemExit, match="1"):
        cli.main(["predict", "--json-only", *arguments])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not Path("out").exists()


def test_models_that_are_not_there(predict):
    for model in ("./nowhere", "/no/where", "a/b/c"):
        code, _, errors = predict("clip.mp4", model=model)
        assert code == 1 and errors == f"error: no such model directory: {model}\n"


# ------------------------------------------------------------ being stopped


def start(folder, temporary):
    """Predict a video in a process of its own, spilling to disk; returns once something was spilled."""
    command = [sys.executable, "-m", "vita_hf", "predict", "long", "--model", "model", "--device", "cpu"]
    command += ["--mask-features", "disk", "--json-only"]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Tests that a shell runs in the background ignore SIGINT, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 300
    while process.poll() is None and not spilled(process.pid, temporary):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def spilled(pid, temporary):
    try:
        files = list(Path(f"/proc/{pid}/fd").iterdir())
        return any(str(file.readlink()).startswith(str(temporary)) and file.stat().st_size > 1000 for file in files)
    except OSError:  # a file that was closed meanwhile
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are looked up in Linux's /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle_nothing_is_left_behind(predict, tmp_path, monkeypatch, sent):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    write_images(tmp_path / "long", make_frames(60, 96, 128))
    process = start(tmp_path, temporary)
    process.send_signal(sent)
    _, errors = process.communicate()
    if sent == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130 and errors.decode().endswith("interrupted\n"), errors.decode()
        assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []
    assert names(temporary) == []

    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    code, printed, _ = predict("long", "--mask-features", "disk", "--json-only")
    assert code == 0 and "in 60 frames, written to out/long" in printed
    assert names(temporary) == [] and names(tmp_path / "out") == ["long"]


def test_results_beside_the_videos_are_no_videos(predict, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy("clip.mp4", "in/clip.mp4")
    assert predict("in", "-o", "in")[0] == 0
    code, printed, _ = predict("in", "-o", "in")
    assert code == 0 and "clip: already finished" in printed and names("in") == ["clip", "clip.mp4"]


def test_names_that_are_one_file_on_macos(tmp_path):
    videos = [tmp_path / f"{name}.mp4" for name in ("caf\u00e9", "cafe\u0301")]
    for number, video in enumerate(videos):
        video.write_bytes(bytes([number]))
    with pytest.raises(ValueError, match="would both be written to"):
        find_videos([*map(str, videos)])


def test_a_link_to_nothing_is_not_written_over(predict):
    Path("out").mkdir()
    Path("out/clip").symlink_to("nothing")
    code, _, error = predict("clip.mp4")
    assert (code, error) == (
        1,
        "error: out/clip exists and was not written by vita-hf predict: choose another --output\n",
    )


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "0"])
def test_sizes_of_downloads(predict, size):
    code, _, error = predict("clip.mp4", f"--max-download={size}")
    assert code == 1 and error.startswith("error: --max-download: expected a positive number of GiB, got ")
