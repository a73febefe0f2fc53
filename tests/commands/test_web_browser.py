"""The web page in a real browser, Debian's chromium, driven by playwright; skipped where one of them is missing."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers.videos import write_video
from vita_hf.tracks.instances import VideoInstances

pytestmark = pytest.mark.slow
gradio = pytest.importorskip("gradio", reason="the page needs gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium (apt-get install chromium)", allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`vita-hf web` with the shipped model: its address, and the folder for its temporary files."""
    temporary = tmp_path_factory.mktemp("temporary")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vita_hf", "web", "--device", "cpu", "--port", str(port), "--max-upload", "1"]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    wait_for(lambda: is_open(port), 120)
    yield f"http://127.0.0.1:{port}", temporary
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert list(temporary.iterdir()) == []


@pytest.fixture
def page(server):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        page.set_default_timeout(30_000)
        page.goto(server[0])
        page.get_by_role("button", name="Segment", exact=True).wait_for()
        yield page
        browser.close()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_open(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def upload(page, path):
    page.locator("input[type=file]").first.set_input_files(str(path))
    page.get_by_text(path.stem).first.wait_for()


def rows(page):
    return [row.split("\t") for row in page.locator("#tracks tbody tr").all_inner_texts()]


def messages(page):
    page.locator(".toast-message-text").first.wait_for()
    return page.locator(".toast-message-text").all_inner_texts()


def overlay_size(page):
    """Width and height of the overlay, once the browser plays it."""
    video = page.locator("#overlay video")
    page.wait_for_function("video => video.readyState >= 2 && video.error === null", arg=video.element_handle())
    return video.evaluate("video => [video.videoWidth, video.videoHeight]")


def black_video(path, num_frames):
    return write_video(path, np.zeros((num_frames, 48, 64, 3), dtype=np.uint8))


def test_an_example_is_segmented_and_filtered(page):
    page.get_by_text("shapes.mp4").click()
    page.locator("video").wait_for()
    press(page, "Segment")
    bars = []
    wait_for(lambda: bars.append(page.locator(".progress-bar").count()) or rows(page))
    assert max(bars) == 1
    assert overlay_size(page) == [384, 288]
    found = rows(page)
    assert {row[1] for row in found} == {"disc", "peanut", "star"}
    assert all(re.fullmatch(r"0:0\d\.\d\d – 0:0\d\.\d\d", row[3]) for row in found)

    results = page.locator("a[download='results.json']")
    links = [results.get_attribute("href")]
    page.get_by_label("Classes").click()
    page.get_by_role("option", name="disc").click()
    discs = [row for row in found if row[1] == "disc"]
    wait_for(lambda: rows(page) == discs)
    wait_for(lambda: results.get_attribute("href") not in links)
    links.append(results.get_attribute("href"))
    score = page.get_by_label("number input for Minimum score")
    score.fill("0.95")
    score.press("Enter")
    best = [row for row in discs if float(row[2]) >= 0.95]
    assert 0 < len(best) < len(discs)
    wait_for(lambda: rows(page) == best)
    wait_for(lambda: results.get_attribute("href") not in links)
    with page.expect_download() as download:
        results.click()
    result = VideoInstances.from_json(download.value.path())
    assert [f"#{track}" for track in result.track_ids.tolist()] == [row[0] for row in best]


def test_errors_are_one_box_without_paths(page, tmp_path):
    press(page, "Segment")
    assert messages(page) == ["Choose a video first."]
    page.locator(".toast-close").click()
    page.locator(".toast-message-text").wait_for(state="detached")
    (tmp_path / "text.mp4").write_text("This is no video.")
    upload(page, tmp_path / "text.mp4")
    page.get_by_text("This file is damaged, or no video.").wait_for()
    press(page, "Segment")
    (message,) = messages(page)
    assert message.startswith("text.mp4 cannot be decoded as a video") and "/" not in message
    assert page.locator(".error", has_text=re.compile("^Error$")).count() <= 2  # in the box and where the overlay were


def test_large_uploads_are_refused(page, tmp_path):
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_000))
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "large.mp4"))
    assert messages(page) == ['File(s) exceed the maximum allowed size of 1.0 Mb: "large.mp4"']


def test_stop_ends_the_computation(page, tmp_path):
    upload(page, black_video(tmp_path / "long.mp4", 3000))
    page.locator("video").wait_for()
    press(page, "Segment")
    page.locator(".progress-bar").first.wait_for()
    press(page, "Stop")
    assert messages(page) == ["Stopped."]
    assert rows(page) == []


def test_closing_the_tab_ends_the_computation_and_removes_its_files(page, server, tmp_path):
    upload(page, black_video(tmp_path / "long.mp4", 3000))
    page.locator("video").wait_for()
    press(page, "Segment")
    page.locator(".progress-bar").first.wait_for()
    wait_for(lambda: len(list(server[1].glob("vita-hf-web-*/session-*"))) == 1)  # earlier tests' are gone
    page.close()
    wait_for(lambda: not list(server[1].glob("vita-hf-web-*/session-*")))


def test_a_video_that_browsers_may_not_play(page, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "hevc.mp4"), "w") as container:
        stream = container.add_stream("libx265", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in np.zeros((5, 48, 64, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    upload(page, tmp_path / "hevc.mp4")
    page.get_by_text("Browsers may not play this video (HEVC). It can be segmented all the same.").wait_for()
    press(page, "Segment")
    page.get_by_text("no tracks").wait_for()
    assert overlay_size(page) == [448, 336]
    assert page.locator(".toast-message-text").count() == 0
