"""Download files from http(s) URLs."""

import base64
import re
import tempfile
from http.client import HTTPException, HTTPResponse
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

MAX_BYTES = 20 * 2**30
TIMEOUT = 30.0


def is_url(path: Any) -> bool:
    """Tell whether `path` is an URL."""
    return isinstance(path, str) and re.match("https?://", path, re.IGNORECASE) is not None


def shown(path: Any) -> str:
    """
    Return a path or address as it may be printed and stored: without user name, password, query and fragment.

    Example:
    ```python
    >>> from vita_hf.video.download import shown

    >>> shown("https://me:secret@host:8080/clip.mp4?token=secret")
    'https://host:8080/clip.mp4'

    ```
    """
    address = re.match(r"([A-Za-z][A-Za-z0-9+.-]+:/+)([^/?#]*@)?([^?#]*)", str(path))
    return address[1] + address[3] if address else str(path)


def download(url: str, max_bytes: int = MAX_BYTES, timeout: float = TIMEOUT) -> IO[bytes]:
    """
    Download into a temporary file without a name, which disappears with the process however it ends.

    Args:
        url: An URL. A user name and password in it are sent to its host alone.
        max_bytes: The largest file to accept, by default 20 GiB.
        timeout: The longest time to wait for the server, in seconds, to connect and for each part of the file.

    Returns:
        The open file, at its start.

    Raises:
        OSError: if the address cannot be reached, answers with an error, is silent for too long, or sends a file that
            is too large or ends early. The message shows the address without password and query.
    """
    file = tempfile.TemporaryFile(prefix="vita-hf-")
    try:
        with urlopen(_make_request(url), timeout=timeout) as response:
            _receive(response, file, max_bytes)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError | HTTPException | ValueError):
            # Messages about a malformed address quote it, and with it the password.
            is_malformed = isinstance(error, ValueError) or type(error).__name__ == "InvalidURL"
            cause = error.reason if type(error) is URLError else error  # without "<urlopen error …>"
            reason = "not a valid address" if is_malformed else getattr(cause, "strerror", None) or cause
            raise OSError(f"cannot download {shown(url)}: {reason}") from (None if is_malformed else error)
        raise
    file.seek(0)
    return file


def _make_request(url: str) -> Request:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    # Some servers reject the User-Agent of Python's own client.
    request = Request(parts._replace(netloc=host, fragment="").geturl(), headers={"User-Agent": "vita-hf"})
    if user:
        credentials = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
    return request


def _receive(response: HTTPResponse, file: IO[bytes], max_bytes: int) -> None:
    """Copy a response into a file; its length is checked, before and after."""
    stated = -1 if response.length is None else response.length  # none for a response in chunks
    received = 0
    while stated <= max_bytes and received <= max_bytes:
        block = response.read(2**20)
        if not block:
            break
        file.write(block)
        received += len(block)
    if max(stated, received) > max_bytes:
        size = f"{stated} bytes" if stated > max_bytes else "more"
        raise OSError(f"expected at most {max_bytes} bytes, but the file has {size}")
    if received < stated:
        raise OSError(f"the file ended early, after {received} of {stated} bytes")
