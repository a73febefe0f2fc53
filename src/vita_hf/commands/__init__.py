"""The subcommands of `vita-hf`, a module each.

A module has `HELP` (a line), `add_arguments(parser)`, which also writes the parser's description and examples, and
`run(args)`, which returns an exit code or None. What a user can mend is raised as one of `EXPECTED_ERRORS`.
"""

import torch

# Raised by the package for input that can't be used; their messages say what was wrong and what was expected.
EXPECTED_ERRORS = (ImportError, OSError, TypeError, ValueError, torch.OutOfMemoryError)


def describe_error(error: BaseException) -> str:
    """An expected error as a sentence."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of memory (smaller chunks or a half-precision type take less): {error}".splitlines()[0]
    return str(error)
