"""Repositories of the Hugging Face Hub."""

import contextlib
from collections.abc import Iterator

from huggingface_hub import HfApi


@contextlib.contextmanager
def hub_errors(repository: str) -> Iterator[None]:
    """
    Give what goes wrong at the Hub a name.

    Raises:
        ValueError: from any error; has the repository and the reason.
    """
    try:
        yield
    except Exception as error:  # those of its HTTP library differ between versions
        raise ValueError(f"--push-to-hub {repository}: {error}") from error


def create_repository(repository: str, kind: str, private: bool | None = None) -> None:
    """
    Make a repository of the Hub where there is none; to be called before the work whose result it is for.

    Args:
        repository: like "me/mine".
        kind: "model" or "dataset".
        private: whether a new one is; by default as the account says.

    Raises:
        ValueError: no Hub, no token, or no right to; says which.
    """
    with hub_errors(repository):
        HfApi().create_repo(repository, repo_type=kind, private=private, exist_ok=True)


__all__ = ["create_repository", "hub_errors"]
