"""Which errors a command reports in one sentence, and how."""

from pathlib import Path

import torch

# Bad input raises one of these. Their messages name what was wrong and what was expected.
EXPECTED_ERRORS = (ImportError, OSError, TypeError, ValueError, torch.OutOfMemoryError)


def describe_error(error: BaseException) -> str:
    """Turn an expected error into a sentence for the user."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory (smaller chunks or half precision need less): {error}".splitlines()[0]
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"the package {package} is missing: pip install {package}"
    if isinstance(error, OSError) and error.strerror:  # without "[Errno 2]"
        return f"{error.filename}: {error.strerror}" if isinstance(error.filename, str | Path) else error.strerror
    return str(error)
