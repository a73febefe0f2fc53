"""The commands of `vita-hf`, one module each.

A module defines `add_arguments(parser)`, which also sets the parser's description and examples, and `run(args)`, which
returns an exit code or None. `main.COMMANDS` lists the commands with a one-line summary each.
"""

import torch

# Bad input raises one of these. Their messages name what was wrong and what was expected.
EXPECTED_ERRORS = (ImportError, OSError, TypeError, ValueError, torch.OutOfMemoryError)


def describe_error(error: BaseException) -> str:
    """Turn an expected error into a sentence for the user."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory (smaller chunks or half precision need less): {error}".splitlines()[0]
    return str(error)
