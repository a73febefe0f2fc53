"""The end of a training: a directory for `from_pretrained`, with a model card."""

from typing import Any

# What a training may be continued with although it differs.
_FREE = ("training.steps", "training.learning_rate_steps", "training.save_dtype", "evaluation")


def describe_changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Dotted names of the values in which two recipes differ, but for those that may change on resuming."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        result = {}
        for key, value in values.items():
            result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
        return result

    old, new = flat(before), flat(now)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and not key.startswith(_FREE))


def save_model(accelerator, trainer, processor, recipe, args, sources, split) -> None:
    """Write config, weights and processor."""
    model = accelerator.unwrap_model(trainer.model)
    state = accelerator.get_state_dict(trainer.model)
    if accelerator.is_main_process:
        import torch

        dtype = getattr(torch, trainer.settings.save_dtype)
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        model.save_pretrained(args.output, state_dict=state)
        processor.save_pretrained(args.output)


__all__ = ["describe_changes", "save_model"]
