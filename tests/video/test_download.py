"""Downloads from a server that is slow, large, unreliable, or wants a password."""

import http.server
import threading
import time

import pytest

from vita_hf.video.download import download, is_url, shown


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind = self.path.partition("?")[0]
        self.server.requests.append((kind, self.headers.get("Authorization")))
        if kind == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/whole")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if kind == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", "1000")
        self.end_headers()
        if kind == "/chunks":
            self.wfile.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")
        elif kind == "/short":
            self.wfile.write(b"x" * 999)
            self.close_connection = True
        elif kind == "/silent":
            self.wfile.write(b"x" * 10)
            self.wfile.flush()
            self.server.released.wait(20)
        else:
            self.wfile.write(b"x" * 1000)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.requests, server.released = [], threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


def address(server, path, user=""):
    return f"http://{user}127.0.0.1:{server.server_port}{path}"


@pytest.mark.parametrize("path", ["/whole", "/chunks"])
def test_a_file_as_large_as_allowed(server, path):
    with download(address(server, path), max_bytes=1000) as file:
        assert file.read() == b"x" * 1000


@pytest.mark.parametrize(
    ("path", "size"), [("/whole?token=secret", "1000 bytes"), ("/silent", "1000 bytes"), ("/chunks", "more")]
)
def test_a_file_that_is_too_large(server, path, size):
    message = rf"^cannot download http://127.0.0.1:\d+/\w+: expected at most 999 bytes, but the file has {size}$"
    with pytest.raises(OSError, match=message):
        download(address(server, path), max_bytes=999)


def test_schemes_in_capitals(server):
    url = address(server, "/whole").replace("http", "HTTP")
    assert is_url(url) and not is_url("httpx://host") and not is_url("folder/http://host")
    with download(url) as file:
        assert file.read() == b"x" * 1000


def test_a_file_that_ends_early(server):
    message = r"^cannot download http://127.0.0.1:\d+/short: the file ended early, after 999 of 1000 bytes$"
    with pytest.raises(OSError, match=message):
        download(address(server, "/short?token=secret"))


def test_a_refused_connection_in_words():
    with pytest.raises(OSError, match=r"^cannot download http://127\.0\.0\.1:1/v\.mp4: Connection refused$"):
        download("http://127.0.0.1:1/v.mp4")


def test_a_silent_server(server):
    start = time.monotonic()
    with pytest.raises(OSError, match=r"cannot download http://127.0.0.1:\d+/silent: .*timed out"):
        download(address(server, "/silent"), timeout=0.2)
    assert time.monotonic() - start < 5


def test_a_password_goes_to_its_host_alone(server):
    download(address(server, "/moved", "me:p%40ss@")).close()
    assert server.requests == [("/moved", "Basic bWU6cEBzcw=="), ("/whole", None)]


@pytest.mark.parametrize(
    "url",
    ["http://me:pass@/x?token=pass", "http://me:pass@host:nan/pass?token", "http://host/a b?pass", "http://[pass"],
)
def test_malformed_addresses_show_no_password(url):
    with pytest.raises(OSError, match=r"^cannot download http://") as caught:
        download(url)
    assert "pass" not in str(caught.value).replace("/pass", "").replace("[pass", "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("clip.mp4?x@y", "clip.mp4?x@y"),
        ("https://host/a%20b/clip.mp4?token=1#t=3", "https://host/a%20b/clip.mp4"),
        ("http://me:a@b@host:80?token", "http://host:80"),
        ("rtsp://me:secret@camera/1?token", "rtsp://camera/1"),
        ("RTSP:/me:secret@camera/1#token", "RTSP:/camera/1"),
        ("C:/clips/a#b.mp4", "C:/clips/a#b.mp4"),
        ("https://me@host/x@y.mp4", "https://host/x@y.mp4"),
    ],
)
def test_what_is_shown_of_addresses(path, expected):
    assert shown(path) == expected
