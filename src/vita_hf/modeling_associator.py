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
"""The video part: from the frame queries of a whole video to its tracks ("object token association").

Shapes: N videos of T frames, fQ frame queries, vQ video queries, C channels.
"""

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.mask2former.modeling_mask2former import Mask2FormerMaskedAttentionDecoderOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_vita import VitaConfig
from .modeling_detector import VitaPreTrainedModel
from .modeling_layers import VitaAttention, VitaDecoderLayer, VitaLayer, embedding_rows

# Windows that an object-encoder layer takes at once. Bounds the memory of long videos and does not change results.
_WINDOW_CHUNK = 16


class VitaObjectEncoderLayer(VitaLayer):
    """Self-attention among the frame queries of neighboring frames, in windows over time.

    Outside training, odd layers shift their windows by half a window, like the reference. The reference rolls time and
    masks what wraps around. Here the shifted windows start before the first frame, which gives every frame the same
    neighbors whatever the length of the batch's other videos.
    """

    def __init__(self, config: VitaConfig, layer_idx: int):
        super().__init__(config, config.video_num_attention_heads, config.video_dim_feedforward)
        self.window_size = config.object_encoder_window_size
        self.is_odd = layer_idx % 2 == 1

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None) -> Tensor:
        """
        Args:
            hidden_states: `(N, T, fQ, C)`.
            frame_mask: `(N, T)` boolean, False for frames that only pad; `None` if there are none.
        """
        batch, frames, queries, channels = hidden_states.shape
        shift = (self.window_size + 1) // 2 if self.is_odd and not self.training else 0
        window = min(self.window_size or frames, frames + shift)  # a single window need not be padded
        after = -(frames + shift) % window
        mask = None
        if shift or after or frame_mask is not None:
            if frame_mask is None:
                frame_mask = hidden_states.new_ones((batch, frames), dtype=torch.bool)
            frame_mask = nn.functional.pad(frame_mask, (shift, after))
            hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, 0, shift, after))
            mask = frame_mask.reshape(-1, window)
            # A window that holds only padding attends to itself: its values stay finite, and are cut off below.
            mask = (mask | ~mask.any(-1, keepdim=True)).repeat_interleave(queries, 1)[:, None, None]
        windows = hidden_states.reshape(-1, window * queries, channels)
        chunks = windows.split(_WINDOW_CHUNK)
        masks = [None] * len(chunks) if mask is None else mask.split(_WINDOW_CHUNK)
        encoded = [
            self.feed_forward(self.attend_to_self(chunk, attention_mask=mask)) for chunk, mask in zip(chunks, masks)
        ]
        windows = encoded[0] if len(encoded) == 1 else torch.cat(encoded)
        return windows.view(batch, -1, queries, channels)[:, shift : shift + frames]


class VitaObjectEncoder(VitaPreTrainedModel):
    """Lets the frame queries of neighboring frames exchange information."""

    _can_record_outputs = {"hidden_states": VitaObjectEncoderLayer}

    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.input_projection = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.layers = nn.ModuleList(
            VitaObjectEncoderLayer(config, layer_idx) for layer_idx in range(config.object_encoder_layers)
        )
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self, frame_queries: Tensor, frame_mask: Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutput:
        r"""
        frame_queries (`torch.Tensor` of shape `(N, T, fQ, C)`):
            The detector's frame queries.
        frame_mask (`torch.Tensor` of shape `(N, T)`, *optional*):
            See [`VitaObjectEncoderLayer`].
        """
        hidden_states = self.input_projection(frame_queries)
        for layer in self.layers:
            hidden_states = layer(hidden_states, frame_mask)
        return BaseModelOutput(last_hidden_state=hidden_states)


class VitaObjectDecoder(VitaPreTrainedModel):
    """Gathers the encoded frame queries of a whole video into its video queries.

    Nothing encodes time: keys get a learnable position per frame-query index, the same in every frame.
    """

    _can_record_outputs = {
        "hidden_states": VitaDecoderLayer,
        "attentions": OutputRecorder(VitaAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(VitaAttention, index=1, layer_name="cross_attn"),
    }

    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.queries_features = nn.Embedding(config.num_video_queries, config.hidden_dim)
        self.queries_embedder = nn.Embedding(config.num_video_queries, config.hidden_dim)
        self.frame_queries_embedder = nn.Embedding(config.num_queries, config.hidden_dim)
        self.layers = nn.ModuleList(
            VitaDecoderLayer(config, config.video_num_attention_heads, config.video_dim_feedforward)
            for _ in range(config.object_decoder_layers)
        )
        self.layernorm = nn.LayerNorm(config.hidden_dim)
        self.post_init()

    @capture_outputs(tie_last_hidden_states=False)
    @auto_docstring
    def forward(
        self, encoded_frame_queries: Tensor, frame_mask: Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> Mask2FormerMaskedAttentionDecoderOutput:
        r"""
        encoded_frame_queries (`torch.Tensor` of shape `(N, T, fQ, C)`):
            The frame queries after the object encoder.
        frame_mask (`torch.Tensor` of shape `(N, T)`, *optional*):
            See [`VitaObjectEncoderLayer`].
        """
        device = encoded_frame_queries.device
        keys = (encoded_frame_queries + embedding_rows(self.frame_queries_embedder, device)).flatten(1, 2)
        values = encoded_frame_queries.flatten(1, 2)
        mask = None
        if frame_mask is not None:
            mask = frame_mask.repeat_interleave(encoded_frame_queries.shape[2], 1)[:, None, None]
        positions = embedding_rows(self.queries_embedder, device)[None]
        hidden_states = embedding_rows(self.queries_features, device)[None].expand(len(values), -1, -1)
        query_states = []
        for layer in self.layers:
            hidden_states = layer(hidden_states, keys, values, positions, mask)
            query_states.append(self.layernorm(hidden_states))
        return Mask2FormerMaskedAttentionDecoderOutput(intermediate_hidden_states=tuple(query_states))
