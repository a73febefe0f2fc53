"""Configuration of VITA: Mask2Former's fields under their transformers names, plus the video part's."""

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, Mask2FormerConfig, PreTrainedConfig, TimmBackboneConfig


@strict
class VitaConfig(Mask2FormerConfig):
    r"""
    Configuration of [`VitaModel`] and [`VitaForVideoInstanceSegmentation`].

    The frame detector is Mask2Former and takes [`~transformers.Mask2FormerConfig`]'s fields (`hidden_dim`,
    `num_queries`, `decoder_layers`, the loss weights, …) unchanged. The defaults are the released R50 video models'.
    Values of a wrong type or that cannot work raise `huggingface_hub`'s `StrictDataclassError`, whose message names the
    field.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            Any backbone that `AutoBackbone` builds and that returns four feature maps of strides 4, 8, 16 and 32.
            Defaults to timm's ResNet-50 with frozen batch norm.
        num_video_queries (`int`, defaults to 100):
            Number of queries of the object decoder: the most tracks a video can have.
        object_encoder_layers (`int`, defaults to 6):
            Layers of the object encoder, which lets the frame queries of neighbouring frames exchange information.
        object_encoder_window_size (`int`, defaults to 6):
            Frames in one attention window of the object encoder; 0 lets all frames attend to each other.
        object_decoder_layers (`int`, defaults to 3):
            Layers of the object decoder, which gathers the frame queries of the whole video into the video queries.
        video_num_attention_heads (`int`, defaults to 8):
            Attention heads of the object encoder and decoder.
        video_dim_feedforward (`int`, defaults to 2048):
            Width of the feed-forward networks of the object encoder and decoder.
        num_last_layers (`int`, defaults to 3):
            How many of the last frame-decoder layers hand their queries to the video part in training, each of them
            supervised. Inference uses the last one only.
        use_similarity_head (`bool`, defaults to `True`):
            Whether the two embeddings of the similarity loss exist. They have no influence on the predictions.
        similarity_weight (`float`, defaults to 0.5):
            Weight of the similarity loss.
        use_video_auxiliary_loss (`bool`, defaults to `True`):
            Whether every layer of the object decoder is supervised, or only the last.
        video_no_object_weight (`float`, defaults to 0.1):
            Weight of the no-object class in the video queries' cross-entropy.
        freeze_detector (`bool`, defaults to `False`):
            Whether only the video part asks for gradients.
        detector_chunk_size (`int`, defaults to 18):
            Frames that go through the detector at once outside training. Bounds memory; does not change results.
        evaluation_top_k (`int`, defaults to 10):
            Number of predictions that a video is scored with.

    Example:
    ```python
    >>> from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation

    >>> config = VitaConfig(num_labels=40)
    >>> model = VitaForVideoInstanceSegmentation(config)
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
        kwargs.pop("model_type", None)  # a Mask2Former's config.json, read as this class, is a VITA's from here on
        if self.backbone_config is None:
            self.backbone_config = TimmBackboneConfig(
                backbone="resnet50", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True
            )
        elif isinstance(self.backbone_config, dict):
            model_type = self.backbone_config.get("model_type")
            if model_type not in CONFIG_MAPPING:
                raise ValueError(
                    f"backbone_config: model_type {model_type!r} is not one that transformers knows; "
                    "expected for example 'timm_backbone' or 'swin'"
                )
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Check what the types cannot: sizes that must divide, ranges, and counts that depend on one another."""
        # Mask2FormerConfig's own check only warns that the backbone is not Swin; every backbone is welcome here.
        PreTrainedConfig.validate_architecture(self)

        def require(condition: bool, field: str, expected: str):
            if not condition:
                raise ValueError(f"{field}: expected {expected}, got {getattr(self, field)!r}")

        for field in (
            "hidden_dim",
            "feature_size",
            "mask_feature_size",
            "num_attention_heads",
            "video_num_attention_heads",
            "encoder_feedforward_dim",
            "dim_feedforward",
            "video_dim_feedforward",
            "encoder_layers",
            "num_queries",
            "num_video_queries",
            "object_decoder_layers",
            "num_last_layers",
            "train_num_points",
            "detector_chunk_size",
            "evaluation_top_k",
        ):
            require(getattr(self, field) >= 1, field, "at least 1")
        for field in (
            "object_encoder_layers",
            "object_encoder_window_size",
            "class_weight",
            "mask_weight",
            "dice_weight",
            "no_object_weight",
            "similarity_weight",
            "video_no_object_weight",
        ):
            require(getattr(self, field) >= 0, field, "0 or more")
        require(self.num_labels >= 1, "num_labels", "at least one class")
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


__all__ = ["VitaConfig"]
