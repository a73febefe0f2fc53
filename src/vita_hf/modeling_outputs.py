"""What the models return.

B videos of T frames, N frames, K classes, fQ frame queries, vQ video queries, L frame-decoder layers handed to the
video part, C hidden and Cm mask channels.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


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
