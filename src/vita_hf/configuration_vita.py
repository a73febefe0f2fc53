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
"""Configuration of VITA: Mask2Former's fields under their transformers names, and the fields of the video part."""

from collections.abc import Generator
from contextlib import contextmanager

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, Mask2FormerConfig, PreTrainedConfig, TimmBackboneConfig
from transformers.utils import auto_docstring

# fmt: off
_AT_LEAST_ONE = (
    "hidden_dim", "feature_size", "mask_feature_size", "num_attention_heads", "video_num_attention_heads",
    "encoder_feedforward_dim", "dim_feedforward", "video_dim_feedforward",
    "encoder_layers", "object_decoder_layers", "num_last_layers", "num_queries", "num_video_queries",
    "train_num_points", "detector_chunk_size", "evaluation_top_k",
)
_NOT_NEGATIVE = (
    "object_encoder_layers", "object_encoder_window_size",
    "class_weight", "mask_weight", "dice_weight", "no_object_weight", "similarity_weight", "video_no_object_weight",
)
_LAYERS = ("encoder_layers", "decoder_layers", "object_encoder_layers", "object_decoder_layers")
_MAX_LAYERS = 1000  # a typing error would take all memory
# fmt: on


@auto_docstring(
    custom_intro="""
    Configuration of [`VitaModel`] and [`VitaForVideoInstanceSegmentation`].

    The frame detector is Mask2Former and takes [`~transformers.Mask2FormerConfig`]'s fields unchanged. The defaults
    build the released R50 video models. Values of a wrong type or out of range raise `huggingface_hub`'s
    `StrictDataclassError`, whose message names the field.
    """
)
@strict
class VitaConfig(Mask2FormerConfig):
    r"""
    backbone_config (`PreTrainedConfig` or `dict`, *optional*):
        Any backbone that `AutoBackbone` builds and that returns four feature maps of strides 4, 8, 16 and 32.
        Defaults to timm's ResNet-50 with frozen batch norm.
    feature_size (`int`, *optional*, defaults to 256):
        Channels of the pixel decoder's maps.
    mask_feature_size (`int`, *optional*, defaults to 256):
        Channels of the mask features and mask embeddings.
    encoder_feedforward_dim (`int`, *optional*, defaults to 1024):
        Width of the pixel decoder's feed-forward networks.
    dim_feedforward (`int`, *optional*, defaults to 2048):
        Width of the masked decoder's feed-forward networks.
    pre_norm (`bool`, *optional*, defaults to `False`):
        Must be `False`: VITA is post-norm throughout.
    enforce_input_projection (`bool`, *optional*, defaults to `False`):
        Whether the masked decoder projects its inputs even if `feature_size` equals `hidden_dim`.
    common_stride (`int`, *optional*, defaults to 4):
        Stride of the mask features; must be 4.
    ignore_value (`int`, *optional*, defaults to 255):
        Not used; Mask2Former's checkpoints have it.
    num_queries (`int`, *optional*, defaults to 100):
        Number of queries of the masked decoder: the most objects that a frame can have.
    train_num_points (`int`, *optional*, defaults to 12544):
        Number of points at which a mask is compared with its target.
    oversample_ratio (`float`, *optional*, defaults to 3.0):
        Number of candidates drawn for each point of the mask losses.
    importance_sample_ratio (`float`, *optional*, defaults to 0.75):
        Share of the mask losses' points that are the least certain candidates.
    feature_strides (`list[int]`, *optional*, defaults to `[4, 8, 16, 32]`):
        Strides of the backbone's maps; no other values are allowed.
    output_auxiliary_logits (`bool`, *optional*):
        Whether to return the detector's own predictions.
    num_video_queries (`int`, *optional*, defaults to 100):
        Number of queries of the object decoder: the maximum number of tracks that a video can have.
    object_encoder_layers (`int`, *optional*, defaults to 6):
        Layers of the object encoder, which lets the frame queries of neighboring frames exchange information.
    object_encoder_window_size (`int`, *optional*, defaults to 6):
        Frames in one attention window of the object encoder; 0 lets all frames attend to each other.
    object_decoder_layers (`int`, *optional*, defaults to 3):
        Layers of the object decoder, which gathers the frame queries of the whole video into the video queries.
    video_num_attention_heads (`int`, *optional*, defaults to 8):
        Attention heads of the object encoder and decoder.
    video_dim_feedforward (`int`, *optional*, defaults to 2048):
        Width of the feed-forward networks of the object encoder and decoder.
    num_last_layers (`int`, *optional*, defaults to 3):
        How many of the last frame-decoder layers hand their queries to the video part in training, each of them
        supervised. Inference uses the last one only.
    use_similarity_head (`bool`, *optional*, defaults to `True`):
        Whether the two embeddings of the similarity loss exist. They have no influence on the predictions.
    similarity_weight (`float`, *optional*, defaults to 0.5):
        Weight of the similarity loss.
    use_video_auxiliary_loss (`bool`, *optional*, defaults to `True`):
        Whether every layer of the object decoder is supervised, or only the last.
    video_no_object_weight (`float`, *optional*, defaults to 0.1):
        Weight of the no-object class in the video queries' cross-entropy.
    freeze_detector (`bool`, *optional*, defaults to `False`):
        Whether to train the video part only.
    detector_chunk_size (`int`, *optional*, defaults to 18):
        Frames that go through the detector at once outside training. Bounds memory; does not change results.
    evaluation_top_k (`int`, *optional*, defaults to 10):
        Number of predictions that a video is scored with.

    Example:
    ```python
    >>> from vita_hf import VitaConfig

    >>> config = VitaConfig(num_labels=40, num_video_queries=50)
    >>> config.backbone_config.backbone
    'resnet50'
    >>> config.object_encoder_window_size
    6

    ```
    """

    model_type = "vita"

    num_video_queries: int = 100
    object_encoder_layers: int = 6
    object_encoder_window_size: int = 6
    object_decoder_layers: int = 3
    video_num_attention_heads: int = 8
    video_dim_feedforward: int = 2048
    num_last_layers: int = 3
    use_similarity_head: bool = True
    similarity_weight: float | int = 0.5
    use_video_auxiliary_loss: bool = True
    video_no_object_weight: float | int = 0.1
    freeze_detector: bool = False
    detector_chunk_size: int = 18
    evaluation_top_k: int = 10

    def __post_init__(self, **kwargs):
        kwargs.pop("model_type", None)  # a Mask2Former's config.json makes a VITA configuration
        if self.backbone_config is None:
            self.backbone_config = TimmBackboneConfig(
                backbone="resnet50", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True
            )
        elif isinstance(self.backbone_config, dict):
            model_type = self.backbone_config.get("model_type")
            if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
                raise ValueError(
                    f"backbone_config: transformers does not know the model_type {model_type!r}; expected for example "
                    "'timm_backbone' or 'swin'"
                )
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Check ranges, divisors and fields that depend on one another; `@strict` checks the types."""
        # Mask2FormerConfig's own check only warns about backbones other than Swin, which are welcome here.
        PreTrainedConfig.validate_architecture(self)

        def require(condition: bool, field: str, expected: str):
            if not condition:
                raise ValueError(f"{field}: expected {expected}, got {getattr(self, field)!r}")

        for field in _AT_LEAST_ONE:
            require(getattr(self, field) >= 1, field, "at least 1")
        for field in _NOT_NEGATIVE:
            require(getattr(self, field) >= 0, field, "0 or more")
        for field in _LAYERS:
            require(getattr(self, field) <= _MAX_LAYERS, field, f"at most {_MAX_LAYERS}")
        require(self.num_labels >= 1, "num_labels", "at least one class")
        names = self.id2label.values()
        # The network counts classes from 0: other keys would shift the names.
        require(
            sorted(self.id2label) == list(range(self.num_labels)) and all(isinstance(n, str) for n in names),
            "id2label",
            f"a name for each class, with the keys 0 to {self.num_labels - 1}",
        )
        require(self.decoder_layers >= 2, "decoder_layers", "at least 2 (it counts the learnable-query prediction)")
        require(
            self.num_last_layers < self.decoder_layers,
            "num_last_layers",
            f"at most decoder_layers - 1 = {self.decoder_layers - 1}",
        )
        require(not self.pre_norm, "pre_norm", "False (VITA is post-norm throughout)")
        require(0 <= self.dropout < 1, "dropout", "a probability in [0, 1)")
        require(self.oversample_ratio >= 1, "oversample_ratio", "at least 1")
        require(0 <= self.importance_sample_ratio <= 1, "importance_sample_ratio", "a share in [0, 1]")
        # The pixel decoder's group norms have 32 groups; the sine position codes halve twice.
        require(self.feature_size % 32 == 0, "feature_size", "a multiple of 32")
        require(self.hidden_dim % 4 == 0, "hidden_dim", "a multiple of 4")
        for heads in ("num_attention_heads", "video_num_attention_heads"):
            require(self.hidden_dim % getattr(self, heads) == 0, heads, f"a divisor of hidden_dim = {self.hidden_dim}")
        require(
            self.feature_size % self.num_attention_heads == 0,
            "num_attention_heads",
            f"a divisor of feature_size = {self.feature_size}",
        )
        require(
            tuple(self.feature_strides) == (4, 8, 16, 32) and self.common_stride == 4,
            "feature_strides" if self.common_stride == 4 else "common_stride",
            "strides (4, 8, 16, 32) with common_stride 4",
        )


@contextmanager
def config_errors(source: str) -> Generator[None]:
    """Turn the error about a wrong field into a `ValueError` that starts with the config's source."""
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(f"{source}: {str(error.__cause__ or error)[:1000]}") from error


__all__ = ["VitaConfig", "config_errors"]
