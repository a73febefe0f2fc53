"""AdamW with the reference's parameter groups."""

import re

import torch
from torch import nn

from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..recipes import TrainingSettings

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)
_POSITION_BIAS = re.compile(r"relative_position_bias_table|(^|\.)absolute_pos_embed$|(^|\.)position_embeddings$")


def parameter_groups(model: VitaForVideoInstanceSegmentation, settings: TrainingSettings) -> list[dict]:
    """
    Groups for an optimiser: what is decayed and what is not, the backbone apart from the rest.

    Norm layers, the weights of `nn.Embedding` and relative position biases are not decayed; biases and the pixel
    decoder's `level_embed` are. Frozen parameters are in no group. Source: `train_net_vita.py` of the reference.

    Returns:
        Dicts with `params`, `names`, `weight_decay`, `lr` and `base_lr` (the rate before the schedule).
    """
    undecayed = set()
    for module_name, module in model.named_modules():
        is_norm = isinstance(module, _NORMS) or type(module).__name__ in ("LayerNorm2d", "ConvNextLayerNorm")
        for name, _ in module.named_parameters(recurse=False):
            if is_norm or isinstance(module, nn.Embedding) or _POSITION_BIAS.search(name):
                undecayed.add(f"{module_name}.{name}".lstrip("."))
    groups: dict[tuple[bool, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        backbone, decayed = "pixel_level_module.encoder." in name, name not in undecayed
        rate = settings.learning_rate * (settings.backbone_multiplier if backbone else 1)
        group = groups.setdefault(
            (backbone, decayed),
            {
                "params": [],
                "names": [],
                "weight_decay": settings.weight_decay if decayed else 0.0,
                "lr": rate,
                "base_lr": rate,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ValueError("the model has no parameter that asks for a gradient")
    return list(groups.values())


def make_optimizer(model: VitaForVideoInstanceSegmentation, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over [`parameter_groups`]."""
    groups = [{k: v for k, v in group.items() if k != "names"} for group in parameter_groups(model, settings)]
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int) -> float:
    """Set every group's rate for a step; returns that of the groups at full rate."""
    factor = settings.learning_rate_factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return settings.learning_rate * factor


__all__ = ["make_optimizer", "parameter_groups", "set_learning_rate"]
