"""VITA: Video Instance Segmentation via Object Token Association (Heo et al., NeurIPS 2022, arXiv 2206.04403).

A Mask2Former detector turns every frame into a few dozen object tokens ("frame queries"); an object encoder lets the
tokens of neighbouring frames exchange information, an object decoder gathers them into video queries, and each video
query is one track: a class and, with the frames' mask features, a mask in every frame.

The detector's parameters carry transformers' Mask2Former names, so that any Mask2Former checkpoint loads into it.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, TimmBackbone
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskPredictor,
    Mask2FormerMLPPredictionHead,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerPredictionBlock,
    Mask2FormerPreTrainedModel,
)
from transformers.pytorch_utils import compile_compatible_method_lru_cache
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_vita import VitaConfig
from .loss_vita import VitaLoss
from .ops import deformable_attention_from_projections

# Rows (tokens) that a feed-forward network, and windows that an object-encoder layer, take at once. They bound the
# memory of long videos and do not change results; clips of training length fit in one piece.
_FEED_FORWARD_CHUNK = 16384
_WINDOW_CHUNK = 16


@dataclass
class VitaDetectorOutput(ModelOutput):
    """
    What the detector says of `N` frames.

    Args:
        frame_states (`tuple` of `(N, fQ, C)` tensors):
            The masked decoder's queries after its final LayerNorm: of the last layer only, or of every prediction
            (the learnable queries before the first layer included).
        video_mask_features (`(N, Cm, H/4, W/4)`):
            Mask features of the video part.
        mask_features (`(N, Cm, H/4, W/4)`):
            Mask features of the detector itself.
        encoder_hidden_states, pixel_decoder_hidden_states, transformer_decoder_hidden_states (`tuple` of tensors):
            The backbone's maps (finest first), the pixel decoder's maps (coarsest first), and the masked decoder's
            states before and after each layer; with `output_hidden_states=True`.
        transformer_decoder_attentions (`tuple` of `(N, heads, fQ, fQ)` tensors):
            Self-attention of the masked decoder, with `output_attentions=True` and eager attention.
    """

    frame_states: tuple[Tensor, ...] | None = None
    video_mask_features: Tensor | None = None
    mask_features: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    pixel_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_attentions: tuple[Tensor, ...] | None = None


@dataclass
class VitaAssociatorOutput(ModelOutput):
    """
    What the video part says of `B` videos, for each of the `L` frame-decoder layers that were handed to it.

    Args:
        video_states (`tuple` of `(L, B, vQ, C)` tensors):
            Video queries after the LayerNorm: of the last object-decoder layer only, or of all.
        encoded_frame_queries (`(L, B, T, fQ, C)`):
            The frame queries after the object encoder.
        object_encoder_hidden_states (`tuple` of `(L·B, T, fQ, C)`), hidden_states (`tuple` of `(L·B, vQ, C)`):
            States before and after each layer, with `output_hidden_states=True`.
        attentions (`tuple` of `(L·B, heads, vQ, vQ)`), cross_attentions (`tuple` of `(L·B, heads, vQ, T·fQ)`):
            Of the object decoder, with `output_attentions=True` and eager attention.
    """

    video_states: tuple[Tensor, ...] | None = None
    encoded_frame_queries: Tensor | None = None
    object_encoder_hidden_states: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class VitaModelOutput(ModelOutput):
    """
    Output of [`VitaModel`].

    Args:
        last_hidden_state (`(B, vQ, C)`):
            Video queries after the final LayerNorm.
        video_mask_features (`(B, T, Cm, H/4, W/4)`):
            Mask features of every frame; their dot product with a query's mask embedding is the mask's logit.
        frame_queries (`(L, B, T, fQ, C)`):
            The frame decoder's outputs handed to the object encoder; `L` is 1 outside training.
        encoded_frame_queries (`(L, B, T, fQ, C)`):
            The same after the object encoder.
        video_states (`tuple` of `(L, B, vQ, C)`):
            Video queries of every object-decoder layer if asked for, else of the last.
        frame_states (`tuple` of `(B·T, fQ, C)`), mask_features (`(B·T, Cm, H/4, W/4)`):
            The detector's own predictions' ingredients, see [`VitaDetectorOutput`].
        encoder_hidden_states, pixel_decoder_hidden_states, transformer_decoder_hidden_states,
        transformer_decoder_attentions:
            See [`VitaDetectorOutput`].
        object_encoder_hidden_states, hidden_states, attentions, cross_attentions:
            See [`VitaAssociatorOutput`].
    """

    last_hidden_state: Tensor | None = None
    video_mask_features: Tensor | None = None
    frame_queries: Tensor | None = None
    encoded_frame_queries: Tensor | None = None
    video_states: tuple[Tensor, ...] | None = None
    frame_states: tuple[Tensor, ...] | None = None
    mask_features: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    pixel_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_attentions: tuple[Tensor, ...] | None = None
    object_encoder_hidden_states: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class VitaForVideoInstanceSegmentationOutput(ModelOutput):
    """
    Output of [`VitaForVideoInstanceSegmentation`].

    Args:
        loss (scalar):
            Sum of `loss_dict`; with labels.
        loss_dict (`dict[str, Tensor]`):
            Every weighted term under the reference's name: `loss_{ce,mask,dice}` of the detector's last prediction,
            `…_{i}` of the earlier ones, `loss_vita_{ce,mask,dice,sim}` of the last object-decoder layer, `…_{i}` of the
            earlier ones.
        class_queries_logits (`(B, vQ, K+1)`):
            Class logits of each video query; the last column is "no object".
        masks_queries_logits (`(B, vQ, T, H/4, W/4)`):
            Mask logits. `None` while training on labels, where only the matched queries' masks are predicted.
        mask_embeddings (`(B, vQ, Cm)`):
            Their dot product with `video_mask_features` gives `masks_queries_logits`.
        video_mask_features (`(B, T, Cm, H/4, W/4)`), frame_queries (`(L, B, T, fQ, C)`):
            See [`VitaModelOutput`].
        auxiliary_logits (`list[dict[str, Tensor]]`):
            The detector's own predictions, first to last: `class_queries_logits` `(B, T, fQ, K+1)` and
            `masks_queries_logits` `(B, T, fQ, H/4, W/4)`; with `output_auxiliary_logits=True`.
        encoder_hidden_states, pixel_decoder_hidden_states, transformer_decoder_hidden_states,
        transformer_decoder_attentions, object_encoder_hidden_states, hidden_states, attentions, cross_attentions:
            See [`VitaDetectorOutput`] and [`VitaAssociatorOutput`].
    """

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    class_queries_logits: Tensor | None = None
    masks_queries_logits: Tensor | None = None
    mask_embeddings: Tensor | None = None
    video_mask_features: Tensor | None = None
    frame_queries: Tensor | None = None
    auxiliary_logits: list[dict[str, Tensor]] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    pixel_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_attentions: tuple[Tensor, ...] | None = None
    object_encoder_hidden_states: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


def in_chunks(function: Callable[[Tensor], Tensor], tensor: Tensor, size: int, dim: int) -> Tensor:
    """Apply `function`, which treats the entries along `dim` independently, to `size` of them at a time."""
    if tensor.shape[dim] <= size:
        return function(tensor)
    return torch.cat([function(chunk) for chunk in tensor.split(size, dim)], dim)


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


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention written out; `attention_mask` is boolean, True where a query may look."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    weights = weights.softmax(-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class VitaAttention(nn.Module):
    """Multi-head attention; positions are added to queries and keys, never to values (DETR)."""

    is_causal = False

    def __init__(self, config: VitaConfig, num_heads: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = config.hidden_dim // num_heads
        self.q_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.k_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.v_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.out_proj = nn.Linear(config.hidden_dim, config.hidden_dim)

    def project(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_proj(queries), self.k_proj(keys), self.v_proj(values)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            queries: `(N, Q, C)`, positions added.
            keys, values: `(N, S, C)`, positions added to the keys only.
            attention_mask: boolean, broadcastable to `(N, heads, Q, S)`, True where a query may look.

        Returns:
            `(N, Q, C)`, and the weights `(N, heads, Q, S)` where the attention implementation has them.
        """
        heads = [
            x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for x in self.project(queries, keys, values)
        ]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.dropout if self.training else 0.0
        output, weights = attend(self, *heads, attention_mask, dropout=dropout, scaling=self.head_dim**-0.5)
        return self.out_proj(output.flatten(2)), weights


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


class VitaLayer(GradientCheckpointingLayer):
    """What the transformer layers share: self-attention and feed-forward network, each followed by a LayerNorm."""

    def __init__(self, config: VitaConfig, num_heads: int, dim_feedforward: int):
        super().__init__()
        self.dropout = config.dropout
        self.self_attn = VitaAttention(config, num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_dim)
        self.fc1 = nn.Linear(config.hidden_dim, dim_feedforward)
        self.fc2 = nn.Linear(dim_feedforward, config.hidden_dim)
        self.final_layer_norm = nn.LayerNorm(config.hidden_dim)

    def add_and_norm(self, residual: Tensor, update: Tensor, norm: nn.LayerNorm) -> Tensor:
        return norm(residual + nn.functional.dropout(update, p=self.dropout, training=self.training))

    def attend_to_self(
        self, hidden_states: Tensor, positions: Tensor | None = None, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        queries = hidden_states if positions is None else hidden_states + positions
        update, weights = self.self_attn(queries, queries, hidden_states, attention_mask)
        return self.add_and_norm(hidden_states, update, self.self_attn_layer_norm), weights

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        def transform(x: Tensor) -> Tensor:
            inner = nn.functional.dropout(self.fc1(x).relu(), p=self.dropout, training=self.training)
            return self.add_and_norm(x, self.fc2(inner), self.final_layer_norm)

        size = max(1, _FEED_FORWARD_CHUNK // hidden_states.shape[0])
        return in_chunks(transform, hidden_states, size, dim=1)


class VitaObjectEncoderLayer(VitaLayer):
    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`(N, S, C)` → `(N, S, C)`; `attention_mask` as in [`VitaAttention`]."""
        return self.feed_forward(self.attend_to_self(hidden_states, attention_mask=attention_mask)[0])


class VitaDecoderLayer(VitaLayer):
    """Cross-attention, then self-attention, then feed-forward network: the order of Mask2Former and of VITA."""

    cross_attention_class = VitaAttention

    def __init__(self, config: VitaConfig, num_heads: int, dim_feedforward: int):
        super().__init__(config, num_heads, dim_feedforward)
        self.cross_attn = self.cross_attention_class(config, num_heads)
        self.cross_attn_layer_norm = nn.LayerNorm(config.hidden_dim)

    def forward(
        self,
        hidden_states: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """
        Args:
            hidden_states: queries `(N, Q, C)`.
            keys, values: `(N, S, C)`, positions added to the keys only.
            positions: of the queries, broadcastable to `(N, Q, C)`.
            attention_mask: of the cross-attention, as in [`VitaAttention`].

        Returns:
            `(N, Q, C)`, self-attention weights, cross-attention weights (or `None` for each).
        """
        update, cross_weights = self.cross_attn(hidden_states + positions, keys, values, attention_mask)
        hidden_states = self.add_and_norm(hidden_states, update, self.cross_attn_layer_norm)
        hidden_states, self_weights = self.attend_to_self(hidden_states, positions)
        return self.feed_forward(hidden_states), self_weights, cross_weights


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


class VitaObjectEncoder(nn.Module):
    """Self-attention among the frame queries of neighbouring frames, in windows over time.

    Odd layers shift the windows by half their length, outside training (as the reference has it). The reference rolls
    time and masks with −1000 what wraps around; here the shifted windows simply start before the first frame, which
    gives every real frame the same neighbours, for each video of a batch whatever its length.
    """

    def __init__(self, config: VitaConfig):
        super().__init__()
        self.window_size = config.object_encoder_window_size
        self.input_projection = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.layers = nn.ModuleList(
            VitaObjectEncoderLayer(config, config.video_num_attention_heads, config.video_dim_feedforward)
            for _ in range(config.object_encoder_layers)
        )

    def forward(
        self, frame_queries: Tensor, frame_mask: Tensor | None, output_hidden_states: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """
        Args:
            frame_queries: `(N, T, fQ, C)`.
            frame_mask: `(N, T)` boolean, False for frames that only pad; `None` if there are none.

        Returns:
            The encoded frame queries, and the states before and after each layer if asked for (else empty).
        """
        hidden_states = self.input_projection(frame_queries)
        all_hidden = (hidden_states,) if output_hidden_states else ()
        for index, layer in enumerate(self.layers):
            if self.window_size == 0:
                hidden_states = self.attend_everywhere(layer, hidden_states, frame_mask)
            else:
                shift = (self.window_size + 1) // 2 if index % 2 and not self.training else 0
                hidden_states = self.attend_in_windows(layer, hidden_states, frame_mask, shift)
            if output_hidden_states:
                all_hidden += (hidden_states,)
        return hidden_states, all_hidden

    def attend_everywhere(self, layer: nn.Module, hidden_states: Tensor, frame_mask: Tensor | None) -> Tensor:
        queries = hidden_states.shape[2]
        mask = None if frame_mask is None else frame_mask.repeat_interleave(queries, 1)[:, None, None]
        return layer(hidden_states.flatten(1, 2), mask).unflatten(1, (-1, queries))

    def attend_in_windows(
        self, layer: nn.Module, hidden_states: Tensor, frame_mask: Tensor | None, shift: int
    ) -> Tensor:
        batch, frames, queries, channels = hidden_states.shape
        after = -(frames + shift) % self.window_size
        mask = None
        if shift or after or frame_mask is not None:
            if frame_mask is None:
                frame_mask = hidden_states.new_ones((batch, frames), dtype=torch.bool)
            frame_mask = nn.functional.pad(frame_mask, (shift, after))
            hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, 0, shift, after))
            mask = frame_mask.reshape(-1, self.window_size)
            # A window of nothing but padding attends to itself: finite, and cut off below.
            mask = (mask | ~mask.any(-1, keepdim=True)).repeat_interleave(queries, 1)[:, None, None]
        windows = hidden_states.reshape(-1, self.window_size * queries, channels)
        if windows.shape[0] <= _WINDOW_CHUNK:
            windows = layer(windows, mask)
        else:
            masks = [None] * len(windows) if mask is None else mask.split(_WINDOW_CHUNK)
            windows = torch.cat([layer(w, m) for w, m in zip(windows.split(_WINDOW_CHUNK), masks)])
        return windows.view(batch, -1, queries, channels)[:, shift : shift + frames]


class VitaObjectDecoder(nn.Module):
    """Video queries gather the encoded frame queries of the whole video. There is no temporal position anywhere: keys
    get a learnable position per frame-query index, the same in every frame.
    """

    def __init__(self, config: VitaConfig):
        super().__init__()
        self.queries_features = nn.Embedding(config.num_video_queries, config.hidden_dim)
        self.queries_embedder = nn.Embedding(config.num_video_queries, config.hidden_dim)
        self.frame_queries_embedder = nn.Embedding(config.num_queries, config.hidden_dim)
        self.layers = nn.ModuleList(
            VitaDecoderLayer(config, config.video_num_attention_heads, config.video_dim_feedforward)
            for _ in range(config.object_decoder_layers)
        )
        self.layernorm = nn.LayerNorm(config.hidden_dim)

    def forward(
        self,
        encoded_frame_queries: Tensor,
        frame_mask: Tensor | None,
        output_all_predictions: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
        """
        Args:
            encoded_frame_queries: `(N, T, fQ, C)`.
            frame_mask: as in [`VitaObjectEncoder`].

        Returns:
            Normalised states `(N, vQ, C)` of the last layer or of all, states around each layer, self-attention
            weights, cross-attention weights.
        """
        frame_queries = encoded_frame_queries.shape[2]
        keys = (encoded_frame_queries + self.frame_queries_embedder.weight).flatten(1, 2)
        values = encoded_frame_queries.flatten(1, 2)
        mask = None if frame_mask is None else frame_mask.repeat_interleave(frame_queries, 1)[:, None, None]
        hidden_states = self.queries_features.weight[None].expand(len(values), -1, -1)
        all_hidden, self_weights, cross_weights = (hidden_states,), (), ()
        for layer in self.layers:
            hidden_states, of_self, across = layer(
                hidden_states, keys, values, self.queries_embedder.weight[None], mask
            )
            all_hidden += (hidden_states,)
            self_weights += (of_self,)
            cross_weights += (across,)
        predicting = all_hidden[1:] if output_all_predictions else all_hidden[-1:]
        return tuple(self.layernorm(states) for states in predicting), all_hidden, self_weights, cross_weights


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
        # Loading replaces parameters, and what they were told about gradients.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_parameters()
        return loaded

    def post_init(self):
        super().post_init()
        self.freeze_parameters()

    def freeze_parameters(self) -> None:
        """Ask no gradient for what the forward never uses (DDP would wait for it), nor for a frozen detector."""
        # transformers' backbones wrap whole models, whose last norm the feature maps never pass.
        frozen = r"(model\.)?pixel_level_module\.encoder\.\w+\.(layernorm|pooler)\."
        if self.config.freeze_detector:
            frozen += r"|(model\.)?(pixel_level_module|transformer_module)\.|class_predictor\."
        for name, parameter in self.named_parameters():
            if re.match(frozen, name):
                parameter.requires_grad_(False)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False):
        # For code outside transformers it skips modules without parameters of their own, which half the rules below
        # are about. It does so for code that may overwrite loaded weights; `transformers.initialization` never does.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise like the reference: detectron2's, Deformable DETR's and PyTorch's own defaults, by module."""
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


class VitaModel(VitaPreTrainedModel):
    """The detector and the video part, without heads.

    `detect` and `associate` are the two halves of `forward`, for code that streams a long video through the first.
    """

    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.pixel_level_module = VitaPixelLevelModule(config)
        self.transformer_module = VitaTransformerModule(config)
        self.video_mask_projection = nn.Conv2d(config.feature_size, config.mask_feature_size, kernel_size=1)
        self.object_encoder = VitaObjectEncoder(config)
        self.object_decoder = VitaObjectDecoder(config)
        self.post_init()

    def detect(
        self,
        pixel_values: Tensor,
        output_all_predictions: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> VitaDetectorOutput:
        """Run the detector on frames, each on its own.

        Args:
            pixel_values: `(N, 3, H, W)`, normalised and padded to multiples of 32.
            output_all_predictions: whether `frame_states` holds every prediction of the masked decoder.

        Returns:
            [`VitaDetectorOutput`].
        """
        features, pixels, mask_features, maps = self.pixel_level_module(pixel_values)
        states, hidden_states, attentions = self.transformer_module(
            maps,
            mask_features,
            output_all_predictions=output_all_predictions,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        return VitaDetectorOutput(
            frame_states=states,
            video_mask_features=self.video_mask_projection(pixels),
            mask_features=mask_features,
            encoder_hidden_states=tuple(features) if output_hidden_states else None,
            pixel_decoder_hidden_states=tuple(maps) if output_hidden_states else None,
            transformer_decoder_hidden_states=hidden_states,
            transformer_decoder_attentions=attentions,
        )

    def associate(
        self,
        frame_queries: Tensor,
        frame_mask: Tensor | None = None,
        output_all_predictions: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> VitaAssociatorOutput:
        """Run the video part on the frame queries of whole videos.

        Args:
            frame_queries: `(L, B, T, fQ, C)`; `L` frame-decoder layers, each treated as videos of its own.
            frame_mask: `(B, T)` boolean, False for frames that only pad shorter videos.
            output_all_predictions: whether `video_states` holds every object-decoder layer.

        Returns:
            [`VitaAssociatorOutput`].
        """
        layers, batch = frame_queries.shape[:2]
        if frame_mask is not None:
            frame_mask = frame_mask.bool().repeat(layers, 1)

        encoded, encoder_hidden = self.object_encoder(frame_queries.flatten(0, 1), frame_mask, output_hidden_states)
        states, hidden_states, attentions, cross_attentions = self.object_decoder(
            encoded, frame_mask, output_all_predictions
        )
        return VitaAssociatorOutput(
            video_states=tuple(tensor.unflatten(0, (layers, batch)) for tensor in states),
            encoded_frame_queries=encoded.unflatten(0, (layers, batch)),
            object_encoder_hidden_states=encoder_hidden if output_hidden_states else None,
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
            cross_attentions=cross_attentions if output_attentions else None,
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        frame_sizes: Tensor | None = None,
        output_all_predictions: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> VitaModelOutput:
        """
        Args:
            pixel_values_videos: `(B, T, 3, H, W)`, normalised, padded to multiples of 32.
            frame_mask: `(B, T)` boolean, False for frames that only pad shorter videos of the batch. They change
                nothing in the other frames' results; what is returned for them has no meaning.
            frame_sizes: ignored: the processor's output carries it for post-processing, and the network does not mask
                padded pixels (as the reference).
            output_all_predictions: whether `frame_states` and `video_states` hold every layer's predictions.

        Returns:
            [`VitaModelOutput`].
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        check_video_shape(pixel_values_videos, frame_mask)
        batch, frames = pixel_values_videos.shape[:2]
        layers = self.config.num_last_layers if self.training else 1
        options = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        pixel_values = pixel_values_videos.flatten(0, 1)
        # The detector's last predictions are all it hands on in training, so all of them are kept there.
        chunks = [
            self.detect(chunk, output_all_predictions or layers > 1, **options)
            for chunk in ([pixel_values] if self.training else pixel_values.split(self.config.detector_chunk_size))
        ]
        detected = chunks[0] if len(chunks) == 1 else concatenate_outputs(chunks)
        frame_queries = torch.stack(
            [states.unflatten(0, (batch, frames)) for states in detected.frame_states[-layers:]]
        )
        video = self.associate(frame_queries, frame_mask, output_all_predictions, **options)
        return VitaModelOutput(
            last_hidden_state=video.video_states[-1][-1],
            video_mask_features=detected.video_mask_features.unflatten(0, (batch, frames)),
            frame_queries=frame_queries,
            encoded_frame_queries=video.encoded_frame_queries,
            video_states=video.video_states,
            frame_states=detected.frame_states if output_all_predictions else None,
            mask_features=detected.mask_features if output_all_predictions else None,
            encoder_hidden_states=detected.encoder_hidden_states,
            pixel_decoder_hidden_states=detected.pixel_decoder_hidden_states,
            transformer_decoder_hidden_states=detected.transformer_decoder_hidden_states,
            transformer_decoder_attentions=detected.transformer_decoder_attentions,
            object_encoder_hidden_states=video.object_encoder_hidden_states,
            hidden_states=video.hidden_states,
            attentions=video.attentions,
            cross_attentions=video.cross_attentions,
        )


class VitaForVideoInstanceSegmentation(VitaPreTrainedModel):
    """VITA with its class, mask and similarity heads, and its losses."""

    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.model = VitaModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.video_class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.video_mask_embedder = Mask2FormerMLPPredictionHead(
            config.hidden_dim, config.hidden_dim, config.mask_feature_size
        )
        if config.use_similarity_head:
            self.frame_similarity_embedder = nn.Linear(config.hidden_dim, config.hidden_dim)
            self.video_similarity_embedder = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        mask_labels: list[Tensor] | None = None,
        class_labels: list[Tensor] | None = None,
        frame_sizes: Tensor | None = None,
        loss_normalizers: dict[str, Tensor] | None = None,
        output_auxiliary_logits: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> VitaForVideoInstanceSegmentationOutput:
        """
        Args:
            pixel_values_videos: `(B, T, 3, H, W)`, normalised, padded to multiples of 32.
            frame_mask: `(B, T)` boolean, False for frames that only pad shorter videos of the batch. They change
                nothing in the other frames' results; what is returned for them has no meaning.
            mask_labels: for each video `(N, T, H, W)`, non-zero inside the instance; an instance is absent from a
                frame where its mask is empty, and ignored if it is absent from all.
            class_labels: for each video `(N,)` int64 in `[0, K)`.
            frame_sizes: ignored, see [`VitaModel`].
            loss_normalizers: divisors of the losses, from [`loss_vita.reduce_loss_normalizers`]: for gradient
                accumulation, where they are to cover all micro-batches. By default this batch's, summed over processes.
            output_auxiliary_logits: whether to return the detector's own predictions, see the output.

        Returns:
            [`VitaForVideoInstanceSegmentationOutput`].

        Raises:
            ValueError: shapes, labels or a frame mask that do not fit; each message says what was expected.
        """
        check_video_shape(pixel_values_videos, frame_mask)
        if (mask_labels is None) != (class_labels is None):
            raise ValueError("mask_labels and class_labels: expected both or neither")
        if output_auxiliary_logits is None:
            output_auxiliary_logits = self.config.output_auxiliary_logits
        criterion = None
        if mask_labels is not None:
            # Checked before the network runs.
            criterion = VitaLoss(self.config, mask_labels, class_labels, pixel_values_videos, frame_mask)

        outputs = self.model(
            pixel_values_videos,
            frame_mask,
            output_all_predictions=criterion is not None or bool(output_auxiliary_logits),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        features = outputs.video_mask_features
        class_logits = self.video_class_predictor(outputs.last_hidden_state)
        mask_embeddings = self.video_mask_embedder(outputs.last_hidden_state)

        loss, loss_dict, masks_logits, auxiliary_logits = None, None, None, None
        if not (self.training and criterion is not None):
            masks_logits = (mask_embeddings[:, None] @ features.flatten(3)).transpose(1, 2)
            masks_logits = masks_logits.unflatten(-1, features.shape[-2:])
        if criterion is not None or output_auxiliary_logits:
            frame_class_logits = [self.class_predictor(states) for states in outputs.frame_states]
            mask_embedder = self.model.transformer_module.decoder.mask_predictor.mask_embedder
            frame_mask_embeddings = [mask_embedder(states) for states in outputs.frame_states]
        if criterion is not None:
            with_similarity = self.config.use_similarity_head
            loss_dict = criterion(
                frame_class_logits=frame_class_logits,
                frame_mask_embeddings=frame_mask_embeddings,
                frame_mask_features=outputs.mask_features,
                video_class_logits=[self.video_class_predictor(states) for states in outputs.video_states],
                video_mask_embeddings=[self.video_mask_embedder(states) for states in outputs.video_states],
                video_mask_features=features,
                frame_similarity=self.frame_similarity_embedder(outputs.encoded_frame_queries)
                if with_similarity
                else None,
                video_similarity=self.video_similarity_embedder(outputs.video_states[-1]) if with_similarity else None,
                normalizers=loss_normalizers,
            )
            loss = sum(loss_dict.values())
        if output_auxiliary_logits:
            frame_shape = pixel_values_videos.shape[:2]
            maps = outputs.mask_features
            auxiliary_logits = [
                {
                    "class_queries_logits": logits.unflatten(0, frame_shape),
                    "masks_queries_logits": (embeddings @ maps.flatten(2))
                    .unflatten(-1, maps.shape[-2:])
                    .unflatten(0, frame_shape),
                }
                for logits, embeddings in zip(frame_class_logits, frame_mask_embeddings)
            ]
        return VitaForVideoInstanceSegmentationOutput(
            loss=loss,
            loss_dict=loss_dict,
            class_queries_logits=class_logits,
            masks_queries_logits=masks_logits,
            mask_embeddings=mask_embeddings,
            video_mask_features=features,
            frame_queries=outputs.frame_queries,
            auxiliary_logits=auxiliary_logits,
            encoder_hidden_states=outputs.encoder_hidden_states,
            pixel_decoder_hidden_states=outputs.pixel_decoder_hidden_states,
            transformer_decoder_hidden_states=outputs.transformer_decoder_hidden_states,
            transformer_decoder_attentions=outputs.transformer_decoder_attentions,
            object_encoder_hidden_states=outputs.object_encoder_hidden_states,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )


@torch.no_grad()
def init_like_timm(backbone: TimmBackbone) -> None:
    """Fill the weights that a checkpoint lacked: transformers leaves a timm model's to timm, which draws them only when
    it builds the model.
    """
    missing = {
        name: tensor
        for name, tensor in backbone.state_dict(keep_vars=True).items()
        if not getattr(tensor, "_is_hf_initialized", False) and tensor.device.type != "meta"
    }
    if missing:
        fresh = type(backbone)(backbone.config).state_dict()
        for name, tensor in missing.items():
            init.copy_(tensor, fresh[name])


def check_video_shape(pixel_values_videos: Tensor, frame_mask: Tensor | None) -> None:
    """Raise a `ValueError` that says what was got and what was wanted."""
    shape = tuple(pixel_values_videos.shape)
    if len(shape) != 5 or shape[1] == 0:
        raise ValueError(f"pixel_values_videos: expected (B, T, 3, H, W) with at least one frame, got {shape}")
    if shape[-2] % 32 or shape[-1] % 32 or 0 in shape[-2:]:
        raise ValueError(
            f"pixel_values_videos: expected height and width padded to multiples of 32, got {shape[-2:]}; "
            "VitaVideoProcessor does this"
        )
    if frame_mask is not None and tuple(frame_mask.shape) != shape[:2]:
        raise ValueError(f"frame_mask: expected (B, T) = {shape[:2]}, got {tuple(frame_mask.shape)}")


def concatenate_outputs(outputs: list[VitaDetectorOutput]) -> VitaDetectorOutput:
    """Join the outputs of chunks of frames."""

    def join(values: tuple):
        if isinstance(values[0], Tensor):
            return torch.cat(values)
        return None if values[0] is None else tuple(join(items) for items in zip(*values))

    return VitaDetectorOutput(**{key: join(tuple(output[key] for output in outputs)) for key in outputs[0]})


__all__ = ["VitaForVideoInstanceSegmentation", "VitaModel", "VitaPreTrainedModel"]
