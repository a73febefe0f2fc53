"""The commands of `vita-hf`, one module each; `main.COMMANDS` lists them.

A module defines `add_arguments(parser)` and `run(args)`, which returns an exit code or None.
"""

import torch

# Bad input raises one of these. Their messages name what was wrong and what was expected.
EXPECTED_ERRORS = (ImportError, OSError, TypeError, ValueError, torch.OutOfMemoryError)


def describe_error(error: BaseException) -> str:
    """Turn an expected error into a sentence for the user."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory (smaller chunks or half precision need less): {error}".splitlines()[0]
    return str(error)
