"""The frame detector: Mask2Former (Cheng et al., CVPR 2022, arXiv 2112.01527), doing what VITA's inference needs of it.

Parameters carry the names of transformers' Mask2Former.
"""

import math

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, TimmBackbone
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskPredictor,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
)
from transformers.pytorch_utils import compile_compatible_method_lru_cache

from .backbones import drop_mlp_paths
from .configuration_vita import VitaConfig
from .modeling_layers import VitaAttention, VitaDecoderLayer
from .ops import deformable_attention_from_projections


@compile_compatible_method_lru_cache(maxsize=16)
def sine_position_codes(height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`(1, height·width, channels)`: DETR's normalised sine codes, rows in the first half, columns in the second."""
    frequencies = 10000 ** (torch.arange(channels // 4, dtype=torch.float32, device=device) / (channels // 4))

    def codes(length: int) -> Tensor:
        positions = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angles = (positions / (length + 1e-6) * (2 * math.pi))[:, None] / frequencies
        return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)

    rows = codes(height)[:, None].expand(height, width, channels // 2)
    columns = codes(width)[None].expand(height, width, channels // 2)
    return torch.cat((rows, columns), -1).flatten(0, 1)[None].to(dtype)


@compile_compatible_method_lru_cache(maxsize=4)
def reference_points(spatial_shapes: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """`(1, S, 1, 2)`: relative centre (x, y) of every pixel of every level, in float32."""
    points = []
    for height, width in spatial_shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        points.append(torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1).flatten(0, 1))
    return torch.cat(points)[None, :, None]


class VitaMaskedCrossAttention(VitaAttention):
    """The same with one packed input projection: the masked decoder's cross-attention is `nn.MultiheadAttention` in
    transformers, and its parameters keep those names.
    """

    def __init__(self, config: VitaConfig, num_heads: int):
        nn.Module.__init__(self)
        self.config = config
        self.num_heads = num_heads
        self.head_dim = config.hidden_dim // num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * config.hidden_dim, config.hidden_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * config.hidden_dim))
        self.out_proj = nn.Linear(config.hidden_dim, config.hidden_dim)

    def project(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
        """`hidden_states`, `positions` `(N, S, C)`; `points` from [`reference_points`]; → `(N, S, C)`."""
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
        """As [`VitaDeformableAttention`]."""

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
    """Mask2Former's pixel decoder; it also hands out the 1/4-scale map that both mask projections start from."""

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
        drop_mlp_paths(self.encoder)
        self.decoder = VitaPixelDecoder(config, channels)
        for tensor in self.encoder.state_dict(keep_vars=True).values():
            if isinstance(self.encoder, TimmBackbone) and tensor.device.type != "meta":
                tensor._is_hf_initialized = True  # drawn by timm, see `init_like_timm`

    def forward(self, pixel_values: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor, list[Tensor]]:
        """`(N, 3, H, W)` → the backbone's maps, then what [`VitaPixelDecoder`] returns."""
        # Convolutions run faster on channels-last maps, on the CPU and on tensor cores.
        features = self.encoder(pixel_values.contiguous(memory_format=torch.channels_last)).feature_maps
        sizes = [tuple(feature.shape[-2:]) for feature in features]
        height, width = pixel_values.shape[-2:]
        if sizes != [(height // stride, width // stride) for stride in (4, 8, 16, 32)]:
            raise ValueError(
                f"backbone_config: expected maps of strides 4, 8, 16, 32 for frames of {(height, width)}, got {sizes}"
            )
        return features, *self.decoder(features)


class VitaMaskedDecoder(nn.Module):
    """Mask2Former's masked-attention decoder, predicting nothing but what its own attention masks need.

    A layer's attention mask is the sign of the previous prediction's mask, down-sampled to the layer's level. Bilinear
    down-sampling and the product with the queries commute, so the mask features are down-sampled once per level
    instead of `decoder_layers` full-resolution predictions.
    """

    def __init__(self, config: VitaConfig):
        super().__init__()
        self.layers = nn.ModuleList(
            VitaMaskedDecoderLayer(config, config.num_attention_heads, config.dim_feedforward)
            for _ in range(config.decoder_layers - 1)
        )
        self.layernorm = nn.LayerNorm(config.hidden_dim)
        # Used for its parameters (`mask_embedder`) only.
        self.mask_predictor = Mask2FormerMaskPredictor(
            config.hidden_dim, config.num_attention_heads, config.mask_feature_size
        )

    @torch.no_grad()
    def attention_mask(self, frame_states: Tensor, level_mask_features: Tensor) -> Tensor:
        """`(N, 1, Q, S)`, True inside each query's mask; a query whose mask is empty may look everywhere."""
        logits = self.mask_predictor.mask_embedder(frame_states) @ level_mask_features
        inside = logits >= 0
        return (inside | ~inside.any(-1, keepdim=True))[:, None]

    def forward(
        self,
        hidden_states: Tensor,
        positions: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        level_mask_features: list[Tensor],
        output_all_predictions: bool,
        output_hidden_states: bool,
        output_attentions: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """
        Args:
            hidden_states: `(N, Q, C)`; positions: `(1, Q, C)`.
            keys, values: `(N, S_l, C)` of each level.
            level_mask_features: `(N, Cm, S_l)` of each level.

        Returns:
            Normalised states (see [`VitaDetectorOutput`]), states around each layer, self-attention weights.
        """
        all_states = (self.layernorm(hidden_states),)
        all_hidden, all_weights = (hidden_states,), ()
        for index, layer in enumerate(self.layers):
            level = index % len(keys)
            mask = self.attention_mask(all_states[-1], level_mask_features[level])
            hidden_states, weights, _ = layer(hidden_states, keys[level], values[level], positions, mask)
            states = self.layernorm(hidden_states)
            all_states = (*all_states, states) if output_all_predictions else (states,)
            if output_hidden_states:
                all_hidden += (hidden_states,)
            if output_attentions:
                all_weights += (weights,)
        return all_states, all_hidden if output_hidden_states else None, all_weights if output_attentions else None


class VitaTransformerModule(nn.Module):
    """Learnable queries, level embeddings and projections around the masked decoder."""

    def __init__(self, config: VitaConfig):
        super().__init__()
        self.queries_embedder = nn.Embedding(config.num_queries, config.hidden_dim)
        self.queries_features = nn.Embedding(config.num_queries, config.hidden_dim)
        projected = config.feature_size != config.hidden_dim or config.enforce_input_projection
        self.input_projections = nn.ModuleList(
            nn.Conv2d(config.feature_size, config.hidden_dim, kernel_size=1) if projected else nn.Sequential()
            for _ in range(3)
        )
        self.decoder = VitaMaskedDecoder(config)
        self.level_embed = nn.Embedding(3, config.hidden_dim)

    def forward(self, maps: list[Tensor], mask_features: Tensor, **output_options: bool):
        """`maps`: the pixel decoder's, coarsest first. Returns what [`VitaMaskedDecoder`] does."""
        keys, values, level_mask_features = [], [], []
        for level, feature in enumerate(maps):
            size = feature.shape[-2:]
            value = self.input_projections[level](feature).flatten(2).transpose(1, 2) + self.level_embed.weight[level]
            values.append(value)
            keys.append(value + sine_position_codes(*size, value.shape[-1], value.dtype, value.device))
            with torch.no_grad():  # attention masks carry no gradient
                pooled = nn.functional.interpolate(mask_features, size=size, mode="bilinear", align_corners=False)
            level_mask_features.append(pooled.flatten(2))
        queries = self.queries_features.weight[None].expand(mask_features.shape[0], -1, -1)
        return self.decoder(
            queries, self.queries_embedder.weight[None], keys, values, level_mask_features, **output_options
        )
