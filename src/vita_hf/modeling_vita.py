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
"""VITA: Video Instance Segmentation via Object Token Association (Heo et al., NeurIPS 2022, arXiv 2206.04403).

A Mask2Former detector turns every frame into a few dozen object tokens ("frame queries"). An object encoder lets the
tokens of neighboring frames exchange information, and an object decoder gathers them into video queries. Each video
query is one track: a class and, with the frames' mask features, a mask in every frame.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.mask2former.modeling_mask2former import Mask2FormerMLPPredictionHead
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, auto_docstring
from transformers.utils.generic import can_return_tuple

from .configuration_vita import VitaConfig
from .loss_vita import SetPredictions, VitaLoss
from .modeling_associator import VitaObjectDecoder, VitaObjectEncoder
from .modeling_detector import VitaPixelLevelModule, VitaPreTrainedModel, VitaTransformerModule
from .modeling_outputs import VitaForVideoInstanceSegmentationOutput, VitaModelOutput


@auto_docstring(
    custom_intro="""
    The detector and the video part of VITA, without heads.

    `detect` and `associate` are the two halves of `forward`, for code that streams a long video through the first.
    """
)
class VitaModel(VitaPreTrainedModel):
    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.pixel_level_module = VitaPixelLevelModule(config)
        self.transformer_module = VitaTransformerModule(config)
        self.video_mask_projection = nn.Conv2d(config.feature_size, config.mask_feature_size, kernel_size=1)
        self.object_encoder = VitaObjectEncoder(config)
        self.object_decoder = VitaObjectDecoder(config)
        self.post_init()

    def train(self, mode: bool = True) -> "VitaModel":
        super().train(mode)
        # CODEPATH: see `freeze_parameters`; the statistics of batch norms stay, too. Drop path follows the mode.
        if self.config.freeze_detector:
            for module in self.pixel_level_module.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def detect(
        self, pixel_values: Tensor, output_all_predictions: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> VitaModelOutput:
        """Run the detector on frames, each on its own.

        Args:
            pixel_values: `(N, 3, H, W)`, normalized and padded to multiples of 32.
            output_all_predictions: whether to return the states of every prediction of the masked decoder.
        """
        features, pixels, mask_features, maps = self.pixel_level_module(pixel_values)
        decoded = self.transformer_module(maps, mask_features, **kwargs)
        output_hidden_states = kwargs.get("output_hidden_states", self.config.output_hidden_states)
        states = decoded.intermediate_hidden_states
        return VitaModelOutput(
            frame_states=states if output_all_predictions else states[-1:],
            video_mask_features=self.video_mask_projection(pixels),
            mask_features=mask_features,
            encoder_hidden_states=tuple(features) if output_hidden_states else None,
            pixel_decoder_hidden_states=tuple(maps) if output_hidden_states else None,
            transformer_decoder_hidden_states=decoded.hidden_states,
            transformer_decoder_attentions=decoded.attentions,
        )

    def associate(
        self, frame_queries: Tensor, frame_mask: Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> VitaModelOutput:
        """Run the video part on the frame queries of whole videos.

        Args:
            frame_queries: `(L, B, T, fQ, C)`; each of the `L` frame-decoder layers is treated as videos of its own.
            frame_mask: `(B, T)` boolean, False for frames that only pad shorter videos.
        """
        layers, batch = frame_queries.shape[:2]
        if frame_mask is not None:
            frame_mask = frame_mask.bool().repeat(layers, 1)
        encoded = self.object_encoder(frame_queries.flatten(0, 1), frame_mask, return_dict=True, **kwargs)
        decoded = self.object_decoder(encoded.last_hidden_state, frame_mask, return_dict=True, **kwargs)
        video_states = tuple(states.unflatten(0, (layers, batch)) for states in decoded.intermediate_hidden_states)
        return VitaModelOutput(
            last_hidden_state=video_states[-1][-1],
            video_states=video_states,
            frame_queries=frame_queries,
            encoded_frame_queries=encoded.last_hidden_state.unflatten(0, (layers, batch)),
            object_encoder_hidden_states=encoded.hidden_states,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
        )

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        frame_sizes: Tensor | None = None,
        original_sizes: Tensor | None = None,
        output_all_predictions: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> VitaModelOutput:
        r"""
        pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`):
            Frames, normalized and padded to multiples of 32.
        frame_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
            False for frames that only pad the shorter videos of the batch. They do not change the results of the other
            frames, and what is returned for them has no meaning.
        frame_sizes (`torch.Tensor` of shape `(B, 2)`, *optional*):
            Ignored. The processor returns it for post-processing; like the reference, the network does not mask padded
            pixels.
        original_sizes (`torch.Tensor` of shape `(B, 2)`, *optional*):
            Ignored. The processor returns it for post-processing.
        output_all_predictions (`bool`, *optional*, defaults to `False`):
            Whether to return `frame_states` and `mask_features`, from which the detector's own predictions follow.

        Example:
        ```python
        >>> import torch
        >>> from vita_hf import VitaModel
        >>> from vita_hf.inference.loading import SHIPPED_MODEL

        >>> model = VitaModel.from_pretrained(SHIPPED_MODEL).eval()
        >>> with torch.no_grad():
        ...     outputs = model(torch.randn(1, 4, 3, 96, 128))
        >>> tuple(outputs.last_hidden_state.shape)  # videos, video queries, channels
        (1, 16, 96)

        ```
        """
        check_video_shape(pixel_values_videos, frame_mask)
        batch, frames = pixel_values_videos.shape[:2]
        layers = self.config.num_last_layers if self.training else 1
        pixel_values = pixel_values_videos.flatten(0, 1)
        chunk_size = len(pixel_values) if self.training else self.config.detector_chunk_size
        # The video part is trained on the detector's last predictions, so all of them are kept there.
        keep_all = output_all_predictions or layers > 1
        chunks = []
        for chunk in pixel_values.split(chunk_size):
            chunks.append(dict(self.detect(chunk, keep_all, **kwargs)))
            if not output_all_predictions:  # the largest output; not even one chunk's outlives the next
                del chunks[-1]["mask_features"]
        detected = concatenate_outputs(chunks)
        last_states = detected["frame_states"][-layers:]
        frame_queries = torch.stack([states.unflatten(0, (batch, frames)) for states in last_states])
        if not output_all_predictions:
            del detected["frame_states"]
        outputs = VitaModelOutput(**detected, **self.associate(frame_queries, frame_mask, **kwargs))
        outputs.video_mask_features = outputs.video_mask_features.unflatten(0, (batch, frames))
        return outputs


@auto_docstring(custom_intro="VITA with its class, mask and similarity heads, and its losses.")
class VitaForVideoInstanceSegmentation(VitaPreTrainedModel):
    def __init__(self, config: VitaConfig):
        super().__init__(config)
        self.model = VitaModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.video_class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.video_mask_embedder = Mask2FormerMLPPredictionHead(
            config.hidden_dim, config.hidden_dim, config.mask_feature_size
        )
        # CODEPATH: all released checkpoints have similarity heads; the paper's ablation trains without.
        if config.use_similarity_head:
            self.frame_similarity_embedder = nn.Linear(config.hidden_dim, config.hidden_dim)
            self.video_similarity_embedder = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.post_init()

    @can_return_tuple
    @auto_docstring
    def forward(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        mask_labels: list[Tensor] | None = None,
        class_labels: list[Tensor] | None = None,
        instance_presence: list[Tensor] | None = None,
        frame_sizes: Tensor | None = None,
        original_sizes: Tensor | None = None,
        loss_normalizers: dict[str, Tensor] | None = None,
        output_auxiliary_logits: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> VitaForVideoInstanceSegmentationOutput:
        r"""
        pixel_values_videos (`torch.Tensor` of shape `(B, T, 3, H, W)`):
            Frames, normalized and padded to multiples of 32.
        frame_mask (`torch.Tensor` of shape `(B, T)`, *optional*):
            See [`VitaModel`].
        mask_labels (`list[torch.Tensor]`, *optional*):
            For each video `(N, T, H, W)`, non-zero inside the instance. An instance is absent from frames where its
            mask is empty, and ignored if it is absent from all.
        class_labels (`list[torch.Tensor]`, *optional*):
            For each video `(N,)` int64 in `[0, K)`.
        instance_presence (`list[torch.Tensor]`, *optional*):
            For each video `(N, T)` bool on the CPU, True where the mask is not empty. By default it is computed from
            the masks, for which the CPU waits for the device.
        frame_sizes (`torch.Tensor` of shape `(B, 2)`, *optional*):
            See [`VitaModel`].
        original_sizes (`torch.Tensor` of shape `(B, 2)`, *optional*):
            See [`VitaModel`].
        loss_normalizers (`dict[str, torch.Tensor]`, *optional*):
            Divisors of the losses, from [`loss_vita.reduce_loss_normalizers`]: for gradient accumulation, where they
            have to cover all micro-batches. By default computed from this batch and summed over processes.
        output_auxiliary_logits (`bool`, *optional*):
            Whether to return the detector's own predictions as `auxiliary_logits`.

        Example:
        ```python
        >>> import torch
        >>> from vita_hf import VitaForVideoInstanceSegmentation, VitaVideoProcessor
        >>> from vita_hf.data.synthetic import SyntheticVideo
        >>> from vita_hf.inference.loading import SHIPPED_MODEL

        >>> model = VitaForVideoInstanceSegmentation.from_pretrained(SHIPPED_MODEL).eval()
        >>> processor = VitaVideoProcessor.from_pretrained(SHIPPED_MODEL)
        >>> frames = [frame for frame, _ in SyntheticVideo(seed=1, index=0, length=4)]
        >>> inputs = processor(frames, return_tensors="pt")
        >>> with torch.no_grad():
        ...     outputs = model(**inputs)
        >>> tuple(outputs.masks_queries_logits.shape)  # videos, video queries, frames, height / 4, width / 4
        (1, 16, 4, 24, 32)

        ```
        """
        check_video_shape(pixel_values_videos, frame_mask)
        if (mask_labels is None) != (class_labels is None):
            raise ValueError("mask_labels and class_labels: expected both or neither")
        if output_auxiliary_logits is None:
            output_auxiliary_logits = self.config.output_auxiliary_logits
        criterion = None
        if mask_labels is not None:  # check the labels before the network runs
            labels = mask_labels, class_labels, pixel_values_videos, frame_mask, instance_presence
            criterion = VitaLoss(self.config, *labels)
        with_frame_predictions = criterion is not None or bool(output_auxiliary_logits)
        kwargs.update(output_all_predictions=with_frame_predictions, return_dict=True)
        outputs = self.model(pixel_values_videos, frame_mask, **kwargs)
        class_logits = self.video_class_predictor(outputs.last_hidden_state)
        mask_embeddings = self.video_mask_embedder(outputs.last_hidden_state)
        loss, loss_dict, masks_logits, auxiliary_logits = None, None, None, None
        if criterion is None or not self.training:
            features = outputs.video_mask_features
            masks_logits = (mask_embeddings[:, None] @ features.flatten(3)).transpose(1, 2)
            masks_logits = masks_logits.unflatten(-1, features.shape[-2:])
        if with_frame_predictions:
            frame_predictions = self.predict_frames(outputs)
        if criterion is not None:
            loss_dict = criterion(frame_predictions, self.predict_videos(outputs), loss_normalizers)
            loss = sum(loss_dict.values())
        if output_auxiliary_logits:
            batch, frames = pixel_values_videos.shape[:2]
            auxiliary_logits = list_frame_logits(frame_predictions, (batch, frames))
        shared = VitaForVideoInstanceSegmentationOutput.__dataclass_fields__
        return VitaForVideoInstanceSegmentationOutput(
            loss=loss,
            loss_dict=loss_dict,
            class_queries_logits=class_logits,
            masks_queries_logits=masks_logits,
            mask_embeddings=mask_embeddings,
            auxiliary_logits=auxiliary_logits,
            **{name: value for name, value in outputs.items() if name in shared},
        )

    def predict_frames(self, outputs: VitaModelOutput) -> SetPredictions:
        """Apply the detector's heads to the frame queries of every prediction."""
        mask_embedder = self.model.transformer_module.decoder.mask_predictor.mask_embedder
        similarity = None
        # CODEPATH: see `__init__`.
        if self.config.use_similarity_head:
            similarity = self.frame_similarity_embedder(outputs.encoded_frame_queries)
        return SetPredictions(
            class_logits=[self.class_predictor(states) for states in outputs.frame_states],
            mask_embeddings=[mask_embedder(states) for states in outputs.frame_states],
            mask_features=outputs.mask_features[:, None],
            similarity_embeddings=similarity,
        )

    def predict_videos(self, outputs: VitaModelOutput) -> SetPredictions:
        """Apply the heads of the video part to the video queries of each object-decoder layer."""
        similarity = None
        # CODEPATH: see `__init__`.
        if self.config.use_similarity_head:
            similarity = self.video_similarity_embedder(outputs.video_states[-1])
        layers = [states.flatten(0, 1) for states in outputs.video_states]
        return SetPredictions(
            class_logits=[self.video_class_predictor(states) for states in layers],
            mask_embeddings=[self.video_mask_embedder(states) for states in layers],
            mask_features=outputs.video_mask_features,
            similarity_embeddings=similarity,
        )


def list_frame_logits(predictions: SetPredictions, shape: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Class and mask logits of the detector's predictions, with `B·T` frames unflattened to `shape`."""
    features, size = predictions.mask_features[:, 0].flatten(2), predictions.mask_features.shape[-2:]
    return [
        {
            "class_queries_logits": class_logits.unflatten(0, shape),
            "masks_queries_logits": (embeddings @ features).unflatten(-1, size).unflatten(0, shape),
        }
        for class_logits, embeddings in zip(predictions.class_logits, predictions.mask_embeddings)
    ]


def check_video_shape(pixel_values_videos: Tensor, frame_mask: Tensor | None) -> None:
    """Raise a `ValueError` if the shapes of the inputs do not fit the network."""
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


def concatenate_outputs(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the outputs of chunks of frames, tensor by tensor."""

    def join(values: tuple):
        if isinstance(values[0], Tensor):
            return values[0] if len(values) == 1 else torch.cat(values)
        return None if values[0] is None else tuple(join(tensors) for tensors in zip(*values))

    return {key: join(tuple(chunk[key] for chunk in chunks)) for key in chunks[0]}


__all__ = ["VitaForVideoInstanceSegmentation", "VitaModel", "VitaPreTrainedModel"]
