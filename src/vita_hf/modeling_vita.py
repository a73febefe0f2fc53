"""VITA: Video Instance Segmentation via Object Token Association (Heo et al., NeurIPS 2022, arXiv 2206.04403).

A Mask2Former detector turns every frame into a few dozen object tokens ("frame queries"); an object encoder lets the
tokens of neighbouring frames exchange information, an object decoder gathers them into video queries, and each video
query is one track: a class and, with the frames' mask features, a mask in every frame.

The detector's parameters carry transformers' Mask2Former names, so that any Mask2Former checkpoint loads into it.
"""

import math
import re

import torch
from torch import Tensor, nn
from transformers import TimmBackbone
from transformers import initialization as init
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMLPPredictionHead,
    Mask2FormerPredictionBlock,
    Mask2FormerPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .configuration_vita import VitaConfig
from .loss_vita import SetPredictions, VitaLoss
from .modeling_detector import (
    VitaMaskedCrossAttention,
    VitaPixelDecoder,
    VitaPixelDecoderLayer,
    VitaPixelLevelModule,
    VitaTransformerModule,
)
from .modeling_layers import VitaAttention, VitaDecoderLayer, VitaLayer
from .modeling_outputs import (
    VitaAssociatorOutput,
    VitaDetectorOutput,
    VitaForVideoInstanceSegmentationOutput,
    VitaModelOutput,
)

# Windows that an object-encoder layer takes at once. Bounds the memory of long videos and does not change results.
_WINDOW_CHUNK = 16


class VitaObjectEncoderLayer(VitaLayer):
    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """`(N, S, C)` → `(N, S, C)`; `attention_mask` as in [`VitaAttention`]."""
        return self.feed_forward(self.attend_to_self(hidden_states, attention_mask=attention_mask)[0])


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
        window = min(self.window_size, frames + shift)  # a single window need not be padded
        after = -(frames + shift) % window
        mask = None
        if shift or after or frame_mask is not None:
            if frame_mask is None:
                frame_mask = hidden_states.new_ones((batch, frames), dtype=torch.bool)
            frame_mask = nn.functional.pad(frame_mask, (shift, after))
            hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, 0, shift, after))
            mask = frame_mask.reshape(-1, window)
            # A window of nothing but padding attends to itself: finite, and cut off below.
            mask = (mask | ~mask.any(-1, keepdim=True)).repeat_interleave(queries, 1)[:, None, None]
        windows = hidden_states.reshape(-1, window * queries, channels)
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

    def get_input_embeddings(self) -> None:
        """None: frames are no tokens that an embedding looks up. Accelerate's FSDP asks."""
        return None

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
        instance_presence: list[Tensor] | None = None,
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
            criterion = VitaLoss(
                self.config, mask_labels, class_labels, pixel_values_videos, frame_mask, instance_presence
            )

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
                SetPredictions(
                    class_logits=frame_class_logits,
                    mask_embeddings=frame_mask_embeddings,
                    mask_features=outputs.mask_features[:, None],
                    similarity_embeddings=self.frame_similarity_embedder(outputs.encoded_frame_queries)
                    if with_similarity
                    else None,
                ),
                SetPredictions(
                    class_logits=[self.video_class_predictor(states).flatten(0, 1) for states in outputs.video_states],
                    mask_embeddings=[self.video_mask_embedder(states).flatten(0, 1) for states in outputs.video_states],
                    mask_features=features,
                    similarity_embeddings=self.video_similarity_embedder(outputs.video_states[-1])
                    if with_similarity
                    else None,
                ),
                loss_normalizers,
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
