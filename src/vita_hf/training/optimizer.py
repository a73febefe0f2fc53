"""AdamW with the parameter groups and the learning rate schedule of the reference."""

import re

import torch
from torch import nn

from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..recipes import TrainingSettings

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.RMSNorm)
_POSITION_BIAS = re.compile(r"relative_position_bias_table|(^|\.)absolute_pos_embed$|(^|\.)position_embeddings$")


def parameter_groups(model: VitaForVideoInstanceSegmentation, settings: TrainingSettings) -> list[dict]:
    """
    Group the trainable parameters by weight decay and learning rate, as `train_net_vita.py` of the reference does.

    Norm layers, the weights of `nn.Embedding` and relative position biases have no weight decay; biases and the pixel
    decoder's `level_embed` have. The backbone has its own learning rate.

    Returns:
        Groups with `params`, `names`, `weight_decay`, `lr` and `base_lr`, the learning rate before the schedule.

    Raises:
        ValueError: if all parameters are frozen.
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
        in_backbone, decayed = "pixel_level_module.encoder." in name, name not in undecayed
        if (in_backbone, decayed) not in groups:
            rate = settings.learning_rate * (settings.backbone_multiplier if in_backbone else 1)
            decay = settings.weight_decay if decayed else 0.0
            group = {"params": [], "names": [], "weight_decay": decay, "lr": rate, "base_lr": rate}
            groups[in_backbone, decayed] = group
        groups[in_backbone, decayed]["params"].append(parameter)
        groups[in_backbone, decayed]["names"].append(name)
    if not groups:
        raise ValueError("the model has no parameter that requires a gradient")
    return list(groups.values())


def make_optimizer(model: VitaForVideoInstanceSegmentation, settings: TrainingSettings) -> torch.optim.AdamW:
    """Create AdamW over [`parameter_groups`]."""
    groups = [{k: v for k, v in group.items() if k != "names"} for group in parameter_groups(model, settings)]
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: TrainingSettings, step: int) -> float:
    """
    Set the learning rate of every group for a step, counted from 0.

    Returns:
        The learning rate of the groups outside the backbone.

    Example:
    ```python
    >>> import torch
    >>> from vita_hf.recipes import load_recipe
    >>> from vita_hf.training.optimizer import set_learning_rate

    >>> settings = load_recipe("ytvis2019-r50").training
    >>> optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "base_lr": settings.learning_rate}])
    >>> [set_learning_rate(optimizer, settings, step) for step in (0, 74_999, 75_000)]
    [5e-05, 5e-05, 5e-06]

    ```
    """
    factor = settings.learning_rate_factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return settings.learning_rate * factor
