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
"""Outputs of the models.

Shapes: B videos of T frames, K classes, fQ frame queries, vQ video queries, L frame-decoder layers handed to the video
part, C hidden channels, Cm mask channels.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput, auto_docstring

_RECORDED_ARGS = r"""
encoder_hidden_states (`tuple(torch.Tensor)`, *optional*):
    The backbone's maps, finest first; with `output_hidden_states=True`.
pixel_decoder_hidden_states (`tuple(torch.Tensor)`, *optional*):
    The pixel decoder's maps, coarsest first; with `output_hidden_states=True`.
transformer_decoder_hidden_states (`tuple(torch.Tensor)` of shape `(B·T, fQ, C)`, *optional*):
    Frame queries before the first and after each layer of the masked decoder; with `output_hidden_states=True`.
transformer_decoder_attentions (`tuple(torch.Tensor)` of shape `(B·T, heads, fQ, fQ)`, *optional*):
    Self-attention weights of the masked decoder, with `output_attentions=True` and eager attention.
object_encoder_hidden_states (`tuple(torch.Tensor)` of shape `(L·B, T, fQ, C)`, *optional*):
    Frame queries before the first and after each layer of the object encoder; with `output_hidden_states=True`.
hidden_states (`tuple(torch.Tensor)` of shape `(L·B, vQ, C)`, *optional*):
    Video queries before the first and after each layer of the object decoder; with `output_hidden_states=True`.
attentions (`tuple(torch.Tensor)` of shape `(L·B, heads, vQ, vQ)`, *optional*):
    Self-attention weights of the object decoder, with `output_attentions=True` and eager attention.
cross_attentions (`tuple(torch.Tensor)` of shape `(L·B, heads, vQ, T·fQ)`, *optional*):
    Cross-attention weights of the object decoder, likewise.
"""


@auto_docstring(
    custom_intro="""
    Output of [`VitaModel`]. Its halves `detect` and `associate` fill the fields of the detector and of the video part.
    """,
    custom_args=r"""
frame_states (`tuple(torch.Tensor)` of shape `(B·T, fQ, C)`, *optional*):
    Frame queries after the masked decoder's final LayerNorm, of every prediction, including that of the learnable
    queries before the first layer; with `output_all_predictions=True`. `detect` always returns those of the last.
mask_features (`torch.Tensor` of shape `(B·T, Cm, H/4, W/4)`, *optional*):
    Mask features of the detector itself, likewise.
video_mask_features (`torch.Tensor` of shape `(B, T, Cm, H/4, W/4)`):
    Mask features of every frame; their dot product with a query's mask embedding is the mask's logit. `detect` returns
    them as `(B·T, Cm, H/4, W/4)`.
frame_queries (`torch.Tensor` of shape `(L, B, T, fQ, C)`):
    The frame decoder's outputs handed to the object encoder; `L` is 1 outside training.
encoded_frame_queries (`torch.Tensor` of shape `(L, B, T, fQ, C)`):
    The same after the object encoder.
video_states (`tuple(torch.Tensor)` of shape `(L, B, vQ, C)`):
    Video queries of each object-decoder layer, after the final LayerNorm.
last_hidden_state (`torch.Tensor` of shape `(B, vQ, C)`):
    Video queries of the last object-decoder layer and frame-decoder layer.
"""
    + _RECORDED_ARGS,
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
    Every weighted term under the reference's name: `loss_{ce,mask,dice}` of the detector's last prediction, `…_{i}` of
    the earlier ones, `loss_vita_{ce,mask,dice,sim}` of the last object-decoder layer, `…_{i}` of the earlier ones.
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
    The detector's own predictions, first to last: `class_queries_logits` `(B, T, fQ, K+1)` and `masks_queries_logits`
    `(B, T, fQ, H/4, W/4)`; with `output_auxiliary_logits=True`.
"""
    + _RECORDED_ARGS,
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
