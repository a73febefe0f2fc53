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
"""Transformer layers that the detector's masked decoder and the video part share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_vita import VitaConfig

# Rows (tokens) that a feed-forward network takes at once. Bounds the memory of long videos and does not change results;
# training clips fit in one piece.
_FEED_FORWARD_CHUNK = 16384


def apply_in_chunks(function: Callable[[Tensor], Tensor], tensor: Tensor, size: int, dim: int) -> Tensor:
    """Apply `function`, which treats the entries along `dim` independently, to `size` of them at a time."""
    if tensor.shape[dim] <= size:
        return function(tensor)
    return torch.cat([function(chunk) for chunk in tensor.split(size, dim)], dim)


def embedding_rows(embedding: nn.Embedding, device: torch.device) -> Tensor:
    """Look up all rows of an embedding. Offloaded weights are there only during a call, not as `embedding.weight`."""
    return embedding(torch.arange(embedding.num_embeddings, device=device))


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
    """Attention in plain PyTorch; `attention_mask` is boolean, True where a query may attend."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    weights = weights.softmax(-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class VitaAttention(nn.Module):
    """Multi-head attention that adds positions to queries and keys, never to values (DETR).

    Args:
        num_heads: by default the detector's.
    """

    is_causal = False

    def __init__(self, config: VitaConfig, num_heads: int | None = None):
        super().__init__()
        self.config = config
        self.num_heads = num_heads or config.num_attention_heads
        self.head_dim = config.hidden_dim // self.num_heads
        self.q_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.k_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.v_proj = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.out_proj = nn.Linear(config.hidden_dim, config.hidden_dim)

    def project(self, queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        return self.q_proj(queries), self.k_proj(keys), self.v_proj(values)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            queries: `(N, Q, C)`, positions added.
            keys, values: `(N, S, C)`, positions added to the keys only.
            attention_mask: boolean, broadcastable to `(N, heads, Q, S)`, True where a query may attend.

        Returns:
            `(N, Q, C)`, and the weights `(N, heads, Q, S)` if the attention implementation returns them.
        """
        heads = [
            tensor.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
            for tensor in self.project(queries, keys, values)
        ]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.dropout if self.training else 0.0
        output, weights = attend(self, *heads, attention_mask, dropout=dropout, scaling=self.head_dim**-0.5)
        return self.out_proj(output.flatten(2)), weights


class VitaLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward network, each followed by a LayerNorm, for subclasses to put together.

    Args:
        num_heads, dim_feedforward: by default the detector's.
    """

    def __init__(self, config: VitaConfig, num_heads: int | None = None, dim_feedforward: int | None = None):
        super().__init__()
        dim_feedforward = dim_feedforward or config.dim_feedforward
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
    ) -> Tensor:
        queries = hidden_states if positions is None else hidden_states + positions
        update, _ = self.self_attn(queries, queries, hidden_states, attention_mask)
        return self.add_and_norm(hidden_states, update, self.self_attn_layer_norm)

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        def transform(tokens: Tensor) -> Tensor:
            inner = nn.functional.dropout(self.fc1(tokens).relu(), p=self.dropout, training=self.training)
            return self.add_and_norm(tokens, self.fc2(inner), self.final_layer_norm)

        size = max(1, _FEED_FORWARD_CHUNK // hidden_states.shape[0])
        return apply_in_chunks(transform, hidden_states, size, dim=1)


class VitaDecoderLayer(VitaLayer):
    """Cross-attention, then self-attention, then feed-forward network: the order of Mask2Former and of VITA."""

    cross_attention_class = VitaAttention

    def __init__(self, config: VitaConfig, num_heads: int | None = None, dim_feedforward: int | None = None):
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
    ) -> Tensor:
        """
        Args:
            hidden_states: queries `(N, Q, C)`.
            keys, values: `(N, S, C)`, positions added to the keys only.
            positions: of the queries, broadcastable to `(N, Q, C)`.
            attention_mask: of the cross-attention, as in [`VitaAttention`].
        """
        update, _ = self.cross_attn(hidden_states + positions, keys, values, attention_mask)
        hidden_states = self.add_and_norm(hidden_states, update, self.cross_attn_layer_norm)
        hidden_states = self.attend_to_self(hidden_states, positions)
        return self.feed_forward(hidden_states)
