"""Repositories of the Hugging Face Hub."""

from huggingface_hub import HfApi


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
    try:
        HfApi().create_repo(repository, repo_type=kind, private=private, exist_ok=True)
    except (OSError, ValueError) as error:  # what its errors are
        raise ValueError(f"--push-to-hub {repository}: {error}") from error


__all__ = ["create_repository"]
