"""Repositories on the Hugging Face Hub."""

from collections.abc import Generator
from contextlib import contextmanager

from huggingface_hub import HfApi


@contextmanager
def hub_errors(repository: str) -> Generator[None]:
    """Turn every error of the block into a `ValueError` that names the repository."""
    try:
        yield
    except Exception as error:  # the errors of the HTTP library differ between versions of huggingface_hub
        raise ValueError(f"--push-to-hub {repository}: {error}") from error


def create_repository(repository: str, kind: str, private: bool | None = None) -> None:
    """
    Create a repository of a kind ("model" or "dataset") if it does not exist yet.

    Call this before the work whose result goes there: it fails if the token is missing or lacks the right.
    """
    with hub_errors(repository):
        HfApi().create_repo(repository, repo_type=kind, private=private, exist_ok=True)


__all__ = ["create_repository", "hub_errors"]
