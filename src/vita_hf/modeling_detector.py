# Copyright 2026 the vita-hf authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The frame detector: Mask2Former (Cheng et al., CVPR 2022, arXiv 2112.01527), reduced to what VITA needs.

Parameters have the same names as in transformers' Mask2Former: any Mask2Former checkpoint loads as the detector.
"""

import math
import re

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, TimmBackbone
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoderOutput,
    Mask2FormerMaskPredictor,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerPredictionBlock,
    Mask2FormerPreTrainedModel,
)
from transformers.processing_utils import Unpack
from transformers.pytorch_utils import compile_compatible_method_lru_cache
from transformers.utils import TransformersKwargs, auto_docstring
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .backbones import drop_both_branches
from .configuration_vita import VitaConfig
from .modeling_layers import VitaAttention, VitaDecoderLayer, VitaLayer, embedding_rows
from .ops import deformable_attention_from_projections


@compile_compatible_method_lru_cache(maxsize=16)
def sine_position_codes(height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """DETR's normalized sine codes `(1, height·width, channels)`, rows in the first half, columns in the second."""
    frequencies = 10000 ** (torch.arange(channels // 4, dtype=torch.float32, device=device) / (channels // 4))

    def codes(length: int) -> Tensor:
        positions = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angles = (positions / (length + 1e-6) * (2 * math.pi))[:, None] / frequencies
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)

    rows = codes(height)[:, None].expand(height, width, channels // 2)
    columns = codes(width)[None].expand(height, width, channels // 2)
    return torch.cat((rows, columns), -1).flatten(0, 1)[None].to(dtype)


def reference_points(spatial_shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Relative center (x, y) of every pixel of every level, `(1, S, 1, 2)` float32."""
    points = []
    for height, width in spatial_shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        points.append(torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1).flatten(0, 1))
    return torch.cat(points)[None, :, None]


class VitaMaskedCrossAttention(VitaAttention):
    """Attention with one packed input projection, with the parameter names of `nn.MultiheadAttention`.

    transformers' masked decoder uses `nn.MultiheadAttention` as its cross-attention.
    """

    def __init__(self, config: VitaConfig, num_heads: int | None = None):
        nn.Module.__init__(self)
        self.config = config
        self.num_heads = num_heads or config.num_attention_heads
        self.head_dim = config.hidden_dim // self.num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.hidden_dim, config.hidden_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * config.hidden_dim))
        self.out_proj = nn.Linear(config.hidden_dim, config.hidden_dim)

    def project(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return tuple(nn.functional.linear(x, w, b) for x, w, b in zip((queries, keys, values), weights, biases))


class VitaMaskedDecoderLayer(VitaDecoderLayer):
    cross_attention_class = VitaMaskedCrossAttention


class VitaDeformableAttention(Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention):
    def forward(
        self,
        hidden_states: Tensor,
        positions: Tensor,
        points: Tensor,
        spatial_shapes: tuple[tuple[int, int], ...],
    ) -> Tensor:
        """Attend from every pixel `(N, S, C)` of all levels to a few points around it, see [`reference_points`]."""
        batch, length, _ = hidden_states.shape
        queries = hidden_states + positions
        value = self.value_proj(hidden_states).view(batch, length, self.n_heads, -1)
        samples = (batch, length, self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(queries).view(*samples, 2)
        logits = self.attention_weights(queries).view(samples)
        return self.output_proj(deformable_attention_from_projections(value, spatial_shapes, points, offsets, logits))


class VitaPixelDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: VitaConfig):
        super().__init__()
        self.dropout = config.dropout
        self.self_attn = VitaDeformableAttention(
            config.feature_size, config.num_attention_heads, n_levels=3, n_points=4
        )
        self.self_attn_layer_norm = nn.LayerNorm(config.feature_size)
        self.fc1 = nn.Linear(config.feature_size, config.encoder_feedforward_dim)
        self.fc2 = nn.Linear(config.encoder_feedforward_dim, config.feature_size)
        self.final_layer_norm = nn.LayerNorm(config.feature_size)

    def forward(
        self, hidden_states: Tensor, positions: Tensor, points: Tensor, spatial_shapes: tuple[tuple[int, int], ...]
    ) -> Tensor:
        def drop(x: Tensor) -> Tensor:
            return nn.functional.dropout(x, p=self.dropout, training=self.training)

        update = drop(self.self_attn(hidden_states, positions, points, spatial_shapes))
        hidden_states = self.self_attn_layer_norm(hidden_states + update)
        update = drop(self.fc2(drop(self.fc1(hidden_states).relu())))
        return self.final_layer_norm(hidden_states + update)


class VitaPixelDecoderEncoder(nn.Module):
    def __init__(self, config: VitaConfig):
        super().__init__()
        self.layers = nn.ModuleList(VitaPixelDecoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, hidden_states: Tensor, positions: Tensor, spatial_shapes: tuple[tuple[int, int], ...]) -> Tensor:
        points = reference_points(spatial_shapes, hidden_states.device)
        for layer in self.layers:
            hidden_states = layer(hidden_states, positions, points, spatial_shapes)
        return hidden_states


class VitaPixelDecoder(Mask2FormerPixelDecoder):
    """Mask2Former's pixel decoder, which also returns the 1/4-scale map that both mask projections start from."""

    def __init__(self, config: VitaConfig, feature_channels: list[int]):
        super().__init__(config, feature_channels)
        self.encoder = VitaPixelDecoderEncoder(config)
        # transformers' `torch.Tensor(…)` ignores `torch.device("meta")`.
        self.level_embed = nn.Parameter(torch.empty(self.num_feature_levels, config.feature_size))

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """
        Args:
            features: the backbone's four maps, finest (1/4) first.

        Returns:
            The 1/4-scale map `(N, C, H/4, W/4)`, the detector's mask features `(N, Cm, H/4, W/4)`, and the three
            multi-scale maps, coarsest (1/32) first.
        """
        device_type = features[0].device.type
        if torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type) == torch.float16:
            with torch.autocast(device_type, enabled=False):  # in float32, like the reference
                return self.decode(tuple(feature.float() for feature in features))
        return self.decode(features)

    def decode(self, features: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, list[Tensor]]:
        flat, positions, shapes = [], [], []
        for level, feature in enumerate(features[:0:-1]):
            embedded = self.input_projections[level](feature)
            height, width = embedded.shape[-2:]
            codes = sine_position_codes(height, width, embedded.shape[1], embedded.dtype, embedded.device)
            flat.append(embedded.flatten(2).transpose(1, 2))
            positions.append(codes + self.level_embed[level])
            shapes.append((height, width))
        encoded = self.encoder(torch.cat(flat, 1), torch.cat(positions, 1), tuple(shapes))
        maps = [
            tokens.transpose(1, 2).unflatten(2, shape)
            for tokens, shape in zip(encoded.split([h * w for h, w in shapes], 1), shapes)
        ]
        finest = features[0]
        upsampled = nn.functional.interpolate(maps[-1], size=finest.shape[-2:], mode="bilinear", align_corners=False)
        pixels = self.layer_1(self.adapter_1(finest) + upsampled)
        return pixels, self.mask_projection(pixels), maps


class VitaPixelLevelModule(nn.Module):
    def __init__(self, config: VitaConfig):
        super().__init__()
        self.encoder = AutoBackbone.from_config(config.backbone_config)
        channels = getattr(self.encoder, "channels", None)
        if channels is None or len(channels) != 4:
            raise ValueError(
                "backbone_config: expected a backbone with four output maps (strides 4, 8, 16, 32), got "
                f"{type(self.encoder).__name__} with {'none' if channels is None else len(channels)}; set out_indices "
                "or out_features"
            )
        drop_both_branches(self.encoder)
        self.decoder = VitaPixelDecoder(config, channels)
        for tensor in self.encoder.state_dict(keep_vars=True).values():
            if isinstance(self.encoder, TimmBackbone) and tensor.device.type != "meta":
                tensor._is_hf_initialized = True  # by timm, see `init_like_timm`

    def forward(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor, list[Tensor]]:
        """Run the backbone and the pixel decoder on frames `(N, 3, H, W)`.

        Returns:
            The backbone's maps, followed by what [`VitaPixelDecoder`] returns.
        """
        # Convolutions run faster on channels-last maps, on the CPU and on tensor cores.
        features = self.encoder(pixel_values.contiguous(memory_format=torch.channels_last)).feature_maps
        sizes = [tuple(feature.shape[-2:]) for feature in features]
        height, width = pixel_values.shape[-2:]
        if sizes != [(height // stride, width // stride) for stride in (4, 8, 16, 32)]:
            raise ValueError(
                f"backbone_config: expected maps of strides 4, 8, 16, 32 for frames of {(height, width)}, got {sizes}"
            )
        return features, *self.decoder(features)


@auto_docstring
class VitaPreTrainedModel(Mask2FormerPreTrainedModel):
    config: VitaConfig
    config_class = VitaConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = [
        "VitaPixelDecoderLayer",
        "VitaMaskedDecoderLayer",
        "VitaObjectEncoderLayer",
        "VitaDecoderLayer",
    ]
    # The class weights of the cross-entropy, a buffer in Mask2Former checkpoints, come from the config.
    _keys_to_ignore_on_load_unexpected = [r"criterion\.empty_weight"]

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading replaces parameters, the new ones ask for gradients.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_parameters()
        return loaded

    def get_input_embeddings(self) -> None:
        """Return None, as frames need no token embeddings; Accelerate's FSDP calls this."""
        return None

    def post_init(self):
        super().post_init()
        self.freeze_parameters()

    def freeze_parameters(self) -> None:
        """Disable the gradients of a frozen detector, and of parameters that `forward` never uses (DDP would wait)."""
        # transformers' backbones wrap whole models, whose last norm no feature map passes.
        frozen = r"(model\.)?pixel_level_module\.encoder\.\w+\.(layernorm|pooler)\."
        # CODEPATH: the released image models train the detector; the paper's ablation and fine-tuning may freeze it.
        if self.config.freeze_detector:
            frozen += r"|(model\.)?(pixel_level_module|transformer_module)\.|class_predictor\."
        for name, parameter in self.named_parameters():
            if re.match(frozen, name):
                parameter.requires_grad_(False)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False):
        # `is_custom_code` skips modules without parameters of their own, which half of the rules below are about. It
        # protects loaded weights from code that overwrites them; `transformers.initialization` never does.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialize like the reference: detectron2's, Deformable DETR's and PyTorch's own defaults, by module."""
        if isinstance(module, VitaAttention):
            if isinstance(module, VitaMaskedCrossAttention):
                init.xavier_uniform_(module.in_proj_weight)
                init.zeros_(module.in_proj_bias)
            else:
                for projection in (module.q_proj, module.k_proj, module.v_proj):
                    # nn.MultiheadAttention draws the three as one (3C, C) matrix: a gain of √½ for each.
                    init.xavier_uniform_(projection.weight, gain=2**-0.5)
                    init.zeros_(projection.bias)
            init.xavier_uniform_(module.out_proj.weight)
            init.zeros_(module.out_proj.bias)
        elif isinstance(module, (VitaLayer, VitaPixelDecoderLayer)):
            init.xavier_uniform_(module.fc1.weight)
            init.xavier_uniform_(module.fc2.weight)
        elif isinstance(module, VitaPixelDecoder):
            init.normal_(module.level_embed)
            for projection in module.input_projections:
                init.xavier_uniform_(projection[0].weight)
        elif isinstance(module, VitaPixelLevelModule):
            if isinstance(module.encoder, TimmBackbone):
                init_like_timm(module.encoder)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = module.in_features**-0.5
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, Mask2FormerPredictionBlock):
            pass  # its nn.Linear above
        else:
            super()._init_weights(module)


@torch.no_grad()
def init_like_timm(backbone: TimmBackbone) -> None:
    """Draw the weights that a checkpoint lacked. transformers leaves this to timm, which draws only in a new model."""
    missing = {
        name: tensor
        for name, tensor in backbone.state_dict(keep_vars=True).items()
        if not getattr(tensor, "_is_hf_initialized", False) and tensor.device.type != "meta"
    }
    if missing:
        fresh = type(backbone)(backbone.config).state_dict()
        for name, tensor in missing.items():
            init.copy_(tensor, fresh[name])


class VitaMaskedDecoder(VitaPreTrainedModel):
    """Mask2Former's masked-attention decoder, which predicts only what its own attention masks need.

    A layer's attention mask is the sign of the previous prediction's mask, down-sampled to the layer's level. Bilinear
    down-sampling and the product with the queries commute, so the mask features are down-sampled once per level
    instead of `decoder_layers` full-resolution predictions.
    """

    _can_record_outputs = {
        "hidden_states": VitaMaskedDecoderLayer,
        "attentions": OutputRecorder(VitaAttention, index=1, layer_name="self_attn"),
    }

    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(VitaMaskedDecoderLayer(config) for _ in range(config.decoder_layers - 1))
        self.layernorm = nn.LayerNorm(config.hidden_dim)
        # Only its parameters (`mask_embedder`) are used.
        self.mask_predictor = Mask2FormerMaskPredictor(
            config.hidden_dim, config.num_attention_heads, config.mask_feature_size
        )
        self.post_init()

    @torch.no_grad()
    def attention_mask(self, query_states: Tensor, level_mask_features: Tensor) -> Tensor:
        """`(N, 1, Q, S)`, True inside each query's mask; a query whose mask is empty may attend everywhere."""
        logits = self.mask_predictor.mask_embedder(query_states) @ level_mask_features
        inside = logits >= 0
        return (inside | ~inside.any(-1, keepdim=True))[:, None]

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self,
        hidden_states: Tensor,
        positions: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        level_mask_features: list[Tensor],
        **kwargs: Unpack[TransformersKwargs],
    ) -> Mask2FormerMaskedAttentionDecoderOutput:
        r"""
        hidden_states (`torch.Tensor` of shape `(N, Q, C)`):
            The learnable queries.
        positions (`torch.Tensor` of shape `(1, Q, C)`):
            Positions of the queries.
        keys (`list[torch.Tensor]` of shape `(N, S_l, C)`):
            Pixels of each level, with their positions.
        values (`list[torch.Tensor]` of shape `(N, S_l, C)`):
            Pixels of each level.
        level_mask_features (`list[torch.Tensor]` of shape `(N, Cm, S_l)`):
            Mask features, down-sampled to each level.
        """
        query_states = [self.layernorm(hidden_states)]
        for index, layer in enumerate(self.layers):
            level = index % len(keys)
            mask = self.attention_mask(query_states[-1], level_mask_features[level])
            hidden_states = layer(hidden_states, keys[level], values[level], positions, mask)
            query_states.append(self.layernorm(hidden_states))
        return Mask2FormerMaskedAttentionDecoderOutput(intermediate_hidden_states=tuple(query_states))


class VitaTransformerModule(nn.Module):
    """Learnable queries, level embeddings and projections around the masked decoder."""

    def __init__(self, config: VitaConfig):
        super().__init__()
        self.queries_embedder = nn.Embedding(config.num_queries, config.hidden_dim)
        self.queries_features = nn.Embedding(config.num_queries, config.hidden_dim)
        projected = config.feature_size != config.hidden_dim or config.enforce_input_projection
        self.input_projections = nn.ModuleList(
            nn.Conv2d(config.feature_size, config.hidden_dim, kernel_size=1) if projected else nn.Identity()
            for _ in range(3)
        )
        self.decoder = VitaMaskedDecoder(config)
        self.level_embed = nn.Embedding(3, config.hidden_dim)

    def forward(
        self, maps: list[Tensor], mask_features: Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> Mask2FormerMaskedAttentionDecoderOutput:
        """Decode the frame queries from the pixel decoder's maps, coarsest first, and mask features."""
        keys, values, level_mask_features = [], [], []
        device = mask_features.device
        for level, (feature, embedding) in enumerate(zip(maps, embedding_rows(self.level_embed, device))):
            size = feature.shape[-2:]
            value = self.input_projections[level](feature).flatten(2).transpose(1, 2) + embedding
            values.append(value)
            keys.append(value + sine_position_codes(*size, value.shape[-1], value.dtype, value.device))
            with torch.no_grad():  # attention masks carry no gradient
                pooled = nn.functional.interpolate(mask_features, size=size, mode="bilinear", align_corners=False)
            level_mask_features.append(pooled.flatten(2))
        queries = embedding_rows(self.queries_features, device)[None].expand(mask_features.shape[0], -1, -1)
        positions = embedding_rows(self.queries_embedder, device)[None]
        return self.decoder(queries, positions, keys, values, level_mask_features, return_dict=True, **kwargs)
