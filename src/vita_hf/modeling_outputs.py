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
"""What the models return.

Shapes: B videos of T frames, N frames, K classes, fQ frame queries, vQ video queries, L frame-decoder layers handed to
the video part, C hidden channels, Cm mask channels.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput, auto_docstring

_DETECTOR_ARGS = r"""
encoder_hidden_states (`tuple(torch.Tensor)`, *optional*):
    The backbone's maps, finest first; with `output_hidden_states=True`.
pixel_decoder_hidden_states (`tuple(torch.Tensor)`, *optional*):
    The pixel decoder's maps, coarsest first; with `output_hidden_states=True`.
transformer_decoder_hidden_states (`tuple(torch.Tensor)` of shape `(N, fQ, C)`, *optional*):
    Frame queries before the first and after each layer of the masked decoder; with `output_hidden_states=True`.
transformer_decoder_attentions (`tuple(torch.Tensor)` of shape `(N, heads, fQ, fQ)`, *optional*):
    Self-attention weights of the masked decoder, with `output_attentions=True` and eager attention.
"""

_ASSOCIATOR_ARGS = r"""
object_encoder_hidden_states (`tuple(torch.Tensor)` of shape `(L·B, T, fQ, C)`, *optional*):
    Frame queries before the first and after each layer of the object encoder; with `output_hidden_states=True`.
hidden_states (`tuple(torch.Tensor)` of shape `(L·B, vQ, C)`, *optional*):
    Video queries before the first and after each layer of the object decoder; with `output_hidden_states=True`.
attentions (`tuple(torch.Tensor)` of shape `(L·B, heads, vQ, vQ)`, *optional*):
    Self-attention weights of the object decoder, with `output_attentions=True` and eager attention.
cross_attentions (`tuple(torch.Tensor)` of shape `(L·B, heads, vQ, T·fQ)`, *optional*):
    Cross-attention weights of the object decoder, likewise.
"""


@auto_docstring(custom_intro="Output of the masked decoder, and of the object decoder.")
@dataclass
class VitaDecoderOutput(ModelOutput):
    r"""
    query_states (`tuple(torch.Tensor)` of shape `(N, Q, C)`):
        Queries after the final LayerNorm, of each layer. The masked decoder's start with the learnable queries.
    hidden_states (`tuple(torch.Tensor)` of shape `(N, Q, C)`, *optional*):
        Queries before the first and after each layer, without the final LayerNorm; with `output_hidden_states=True`.
    attentions (`tuple(torch.Tensor)` of shape `(N, heads, Q, Q)`, *optional*):
        Self-attention weights of each layer, with `output_attentions=True` and eager attention.
    cross_attentions (`tuple(torch.Tensor)` of shape `(N, heads, Q, S)`, *optional*):
        Cross-attention weights of each object-decoder layer, likewise.
    """

    query_states: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@auto_docstring(
    custom_intro="Output of [`VitaModel.detect`] on `N` frames.",
    custom_args=r"""
frame_states (`tuple(torch.Tensor)` of shape `(N, fQ, C)`):
    Frame queries after the masked decoder's final LayerNorm: of the last layer only, or of every prediction,
    including that of the learnable queries before the first layer.
video_mask_features (`torch.Tensor` of shape `(N, Cm, H/4, W/4)`):
    Mask features of the video part.
mask_features (`torch.Tensor` of shape `(N, Cm, H/4, W/4)`):
    Mask features of the detector itself.
"""
    + _DETECTOR_ARGS,
)
@dataclass
class VitaDetectorOutput(ModelOutput):
    frame_states: tuple[Tensor, ...] | None = None
    video_mask_features: Tensor | None = None
    mask_features: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    pixel_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_hidden_states: tuple[Tensor, ...] | None = None
    transformer_decoder_attentions: tuple[Tensor, ...] | None = None


@auto_docstring(
    custom_intro="Output of [`VitaModel.associate`] on `B` videos, for each of the `L` given frame-decoder layers.",
    custom_args=r"""
video_states (`tuple(torch.Tensor)` of shape `(L, B, vQ, C)`):
    Video queries of each object-decoder layer, after the final LayerNorm.
encoded_frame_queries (`torch.Tensor` of shape `(L, B, T, fQ, C)`):
    The frame queries after the object encoder.
"""
    + _ASSOCIATOR_ARGS,
)
@dataclass
class VitaAssociatorOutput(ModelOutput):
    video_states: tuple[Tensor, ...] | None = None
    encoded_frame_queries: Tensor | None = None
    object_encoder_hidden_states: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@auto_docstring(
    custom_intro="Output of [`VitaModel`].",
    custom_args=r"""
last_hidden_state (`torch.Tensor` of shape `(B, vQ, C)`):
    Video queries after the final LayerNorm.
video_mask_features (`torch.Tensor` of shape `(B, T, Cm, H/4, W/4)`):
    Mask features of every frame; their dot product with a query's mask embedding is the mask's logit.
frame_queries (`torch.Tensor` of shape `(L, B, T, fQ, C)`):
    The frame decoder's outputs handed to the object encoder; `L` is 1 outside training.
encoded_frame_queries (`torch.Tensor` of shape `(L, B, T, fQ, C)`):
    The same after the object encoder.
video_states (`tuple(torch.Tensor)` of shape `(L, B, vQ, C)`):
    Video queries of each object-decoder layer, after the final LayerNorm.
frame_states (`tuple(torch.Tensor)` of shape `(B·T, fQ, C)`, *optional*):
    Frame queries of every prediction, see [`VitaDetectorOutput`]; with `output_all_predictions=True`.
mask_features (`torch.Tensor` of shape `(B·T, Cm, H/4, W/4)`, *optional*):
    Mask features of the detector itself, likewise.
"""
    + _DETECTOR_ARGS
    + _ASSOCIATOR_ARGS,
)
@dataclass
class VitaModelOutput(ModelOutput):
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


@auto_docstring(
    custom_intro="Output of [`VitaForVideoInstanceSegmentation`].",
    custom_args=r"""
loss (`torch.Tensor` of shape `()`, *optional*):
    Sum of `loss_dict`; with labels.
loss_dict (`dict[str, torch.Tensor]`, *optional*):
    Every weighted term under the reference's name: `loss_{ce,mask,dice}` of the detector's last prediction,
    `…_{i}` of the earlier ones, `loss_vita_{ce,mask,dice,sim}` of the last object-decoder layer, `…_{i}` of the
    earlier ones.
class_queries_logits (`torch.Tensor` of shape `(B, vQ, K+1)`):
    Class logits of each video query; the last column is "no object".
masks_queries_logits (`torch.Tensor` of shape `(B, vQ, T, H/4, W/4)`, *optional*):
    Mask logits. `None` while training on labels, when only the masks of matched queries are predicted.
mask_embeddings (`torch.Tensor` of shape `(B, vQ, Cm)`):
    Their dot product with `video_mask_features` gives `masks_queries_logits`.
video_mask_features (`torch.Tensor` of shape `(B, T, Cm, H/4, W/4)`):
    See [`VitaModelOutput`].
frame_queries (`torch.Tensor` of shape `(L, B, T, fQ, C)`):
    See [`VitaModelOutput`].
auxiliary_logits (`list[dict[str, torch.Tensor]]`, *optional*):
    The detector's own predictions, first to last: `class_queries_logits` `(B, T, fQ, K+1)` and
    `masks_queries_logits` `(B, T, fQ, H/4, W/4)`; with `output_auxiliary_logits=True`.
"""
    + _DETECTOR_ARGS
    + _ASSOCIATOR_ARGS,
)
@dataclass
class VitaForVideoInstanceSegmentationOutput(ModelOutput):
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


def recorded_outputs(*outputs: ModelOutput) -> dict[str, Any]:
    """Collect the hidden states and attentions that outputs hold."""
    names = ("hidden_states", "attentions")
    return {name: value for output in outputs for name, value in output.items() if name.endswith(names)}
