"""Transformer layers that the detector's masked decoder and the video part share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_vita import VitaConfig

# Rows (tokens) that a feed-forward network takes at once. Bounds the memory of long videos and does not change results;
# clips of training length fit in one piece.
_FEED_FORWARD_CHUNK = 16384


def in_chunks(function: Callable[[Tensor], Tensor], tensor: Tensor, size: int, dim: int) -> Tensor:
    """Apply `function`, which treats the entries along `dim` independently, to `size` of them at a time."""
    if tensor.shape[dim] <= size:
        return function(tensor)
    return torch.cat([function(chunk) for chunk in tensor.split(size, dim)], dim)


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
