"""Launch training in several processes with one of this package's Accelerate configs."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..recipes.plain_yaml import load_yaml

CONFIGS = Path(__file__).parent / "accelerate_configs"


def launch_command(config: str, arguments: Sequence[str], num_processes: int | None = None) -> list[str]:
    """
    Build the command `accelerate launch … -m vita_hf <arguments>`.

    Args:
        config: A config of this package ("one_gpu", "several_gpus", "fsdp", "cpu") or the path of a YAML file.
        arguments: The command line of `vita-hf`, starting with the command.
        num_processes: Number of processes; by default that of the config, or else one per GPU.

    Raises:
        ValueError: if there is no such config, or neither a GPU nor a number of processes.

    Example:
    ```python
    >>> from vita_hf.training.launch import launch_command

    >>> command = launch_command("cpu", ["train", "--recipe", "tiny-synthetic"])
    >>> " ".join(command[-8:])
    '--num_processes 2 -m vita_hf train --recipe tiny-synthetic --cpu'

    ```
    """
    file = Path(config) if Path(config).is_file() else CONFIGS / f"{config}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
        raise ValueError(f"--accelerate-config: expected one of {names} or a YAML file, got {config!r}")
    try:
        settings = load_yaml(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--accelerate-config: {file}: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"--accelerate-config: {file}: expected a mapping of settings")
    if num_processes is not None and num_processes < 1:
        raise ValueError(f"--num-processes: expected at least 1, got {num_processes}")
    processes = num_processes or settings.get("num_processes") or torch.cuda.device_count()
    if not processes:
        raise ValueError(f"--accelerate-config {config}: expected a GPU, or --num-processes")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    command += ["--num_processes", str(processes), "-m", "vita_hf", *arguments]
    return [*command, "--cpu"] if settings.get("use_cpu") else command
