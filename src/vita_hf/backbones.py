"""Additions to transformers' and timm's backbones: ResNets of any width, and Swin's second drop path.

The released models use timm's `resnet50` and `resnet101` through `TimmBackboneConfig`. [`VitaResNetConfig`] adds the
widths that a detectron2 config sets by `RES2_OUT_CHANNELS`, `WIDTH_PER_GROUP`, `NUM_GROUPS` and `STEM_OUT_CHANNELS`.
"""

from huggingface_hub.dataclasses import strict
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, TimmBackbone, TimmBackboneConfig
from transformers.models.swin.modeling_swin import SwinDropPath, SwinLayer

# Blocks of each stage, by depth.
_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class _AnyStemResNet(ResNet):
    """timm's bottleneck ResNet with a stem of any width; timm's own 7×7 stem always has 64 channels."""

    def __init__(self, *args, stem_channels: int, norm_layer=nn.BatchNorm2d, **kwargs):
        super().__init__(*args, norm_layer=norm_layer, **kwargs)

        def resized(conv: nn.Conv2d, in_channels: int, out_channels: int) -> nn.Conv2d:
            has_bias = conv.bias is not None
            return nn.Conv2d(in_channels, out_channels, conv.kernel_size, conv.stride, conv.padding, bias=has_bias)

        self.conv1 = resized(self.conv1, self.conv1.in_channels, stem_channels)
        self.bn1 = norm_layer(stem_channels)
        first = self.layer1[0]
        first.conv1 = resized(first.conv1, stem_channels, first.conv1.out_channels)
        if first.downsample is None:
            raise ValueError("res2_channels: expected other than 64, where timm's ResNet has no projection shortcut")
        first.downsample[0] = resized(first.downsample[0], stem_channels, first.downsample[0].out_channels)
        self.feature_info[0]["num_chs"] = stem_channels
        self.init_weights()


default_cfgs = generate_default_cfgs({"vita_resnet.untrained": {}})  # timm looks this name up in the module


@register_model
def vita_resnet(pretrained: bool = False, **kwargs) -> nn.Module:
    return build_model_with_cfg(_AnyStemResNet, "vita_resnet", pretrained, block=Bottleneck, **kwargs)


@strict
class VitaResNetConfig(TimmBackboneConfig):
    r"""
    Configuration of a bottleneck ResNet of any width, with the stride in its 3×3 convolutions.

    Args:
        depth (`int`, defaults to 50):
            Number of layers: 50, 101 or 152.
        stem_channels (`int`, defaults to 64):
            Channels after the 7×7 stem.
        res2_channels (`int`, defaults to 256):
            Channels of the first stage, doubled at each further one. A multiple of 4, and not 64.
        width_per_group (`int`, defaults to 64):
            Channels of a group inside the first stage's bottlenecks.
        num_groups (`int`, defaults to 1):
            Groups of the 3×3 convolutions.

    Example:
    ```python
    >>> from transformers import AutoBackbone
    >>> from vita_hf.backbones import VitaResNetConfig

    >>> config = VitaResNetConfig(stem_channels=8, res2_channels=32, width_per_group=8)
    >>> AutoBackbone.from_config(config).channels
    [32, 64, 128, 256]

    ```
    """

    model_type = "vita_resnet"

    depth: int = 50
    stem_channels: int = 64
    res2_channels: int = 256
    width_per_group: int = 64
    num_groups: int = 1

    def __post_init__(self, **kwargs):
        self.backbone = "vita_resnet"
        self.out_indices = [1, 2, 3, 4] if self.out_indices is None else self.out_indices
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        super().validate_architecture()
        if self.depth not in _BLOCKS:
            raise ValueError(f"depth: expected one of {sorted(_BLOCKS)}, got {self.depth}")
        if self.res2_channels % 4:
            raise ValueError(f"res2_channels: expected a multiple of 4, got {self.res2_channels}")
        if (self.width_per_group * 256) % self.res2_channels:
            raise ValueError(
                f"width_per_group: expected a multiple of res2_channels / 256 = {self.res2_channels / 256}, "
                f"got {self.width_per_group}"
            )


class VitaResNetBackbone(TimmBackbone):
    """[`~transformers.TimmBackbone`] around a ResNet of [`VitaResNetConfig`]'s widths."""

    config: VitaResNetConfig

    def __init__(self, config: VitaResNetConfig, **kwargs):
        planes = config.res2_channels // Bottleneck.expansion
        super().__init__(
            config,
            layers=_BLOCKS[config.depth],
            channels=tuple(planes * 2**stage for stage in range(4)),
            # timm: width of a group = planes * base_width / 64
            base_width=config.width_per_group * 64 // planes,
            cardinality=config.num_groups,
            stem_channels=config.stem_channels,
            **kwargs,
        )


class _BranchDropPath:
    """Stochastic depth of one Swin layer: drops the attention and the MLP branch, each drawn per sample.

    transformers' layers drop their attention branch only. Forward hooks on the two branches take over the layer's own
    drop path. They change neither the class of the layer, by whose name checkpoints are converted, nor the state dict.
    """

    def __init__(self, layer: SwinLayer):
        self.drop_path = layer.drop_path.train()  # no child of the layer any more; the hooks ask whether it is trained
        self.batch_size = 0
        layer.drop_path = nn.Identity()
        layer.register_forward_pre_hook(self.note_batch_size)
        layer.attention.register_forward_hook(self.drop_attention)
        layer.mlp.register_forward_hook(self.drop_mlp)

    def note_batch_size(self, layer: SwinLayer, args: tuple) -> None:
        if layer.training:
            self.batch_size = len(args[0])

    def drop_attention(self, attention: nn.Module, args: tuple, output: tuple) -> tuple | None:
        if not attention.training:
            return None
        windows, *weights = output  # (B·windows, tokens, C)
        samples = windows.unflatten(0, (self.batch_size, -1))
        return self.drop_path(samples).flatten(0, 1), *weights

    def drop_mlp(self, mlp: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        return self.drop_path(output) if mlp.training else None


def drop_both_branches(backbone: nn.Module) -> None:
    """Let the Swin layers of `backbone` drop both their branches in training, like the paper and the reference."""
    for layer in backbone.modules():
        if isinstance(layer, SwinLayer) and isinstance(layer.drop_path, SwinDropPath):
            _BranchDropPath(layer)


AutoConfig.register("vita_resnet", VitaResNetConfig, exist_ok=True)
AutoBackbone.register(VitaResNetConfig, VitaResNetBackbone, exist_ok=True)

__all__ = ["VitaResNetBackbone", "VitaResNetConfig"]
