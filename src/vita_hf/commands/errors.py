"""Which errors a command reports in one sentence, and how."""

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
    return str(error)
