"""Download files from http(s) URLs."""

import shutil
import tempfile
from http.client import HTTPException
from typing import IO, Any
from urllib.request import Request, urlopen


def is_url(path: Any) -> bool:
    """Tell whether `path` is an URL."""
    return isinstance(path, str) and path.startswith(("http://", "https://"))


def download(url: str) -> IO[bytes]:
    """
    Download into a temporary file without a name, which disappears with the process however it ends.

    Args:
        url: An URL.

    Returns:
        The open file, at its start.

    Raises:
        OSError: if the address cannot be reached or answers with an error.
    """
    file = tempfile.TemporaryFile(prefix="vita-hf-")
    try:
        # Some servers reject the User-Agent of Python's own client.
        with urlopen(Request(url, headers={"User-Agent": "vita-hf"})) as response:
            shutil.copyfileobj(response, file, 2**20)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError | HTTPException | ValueError):
            raise OSError(f"cannot download {url}: {error}") from error
        raise
    file.seek(0)
    return file
