import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import SwinConfig, TimmBackboneConfig

from vita_hf import VitaConfig
from vita_hf.backbones import VitaResNetConfig


def test_defaults_are_the_released_r50_video_model():
    config = VitaConfig()
    assert isinstance(config.backbone_config, TimmBackboneConfig)
    assert config.backbone_config.backbone == "resnet50" and config.backbone_config.freeze_batch_norm_2d
    assert (config.num_queries, config.num_video_queries) == (100, 100)
    assert (config.object_encoder_layers, config.object_encoder_window_size, config.object_decoder_layers) == (6, 6, 3)
    assert (config.num_last_layers, config.similarity_weight, config.video_no_object_weight) == (3, 0.5, 0.1)
    assert (config.class_weight, config.mask_weight, config.dice_weight, config.no_object_weight) == (2, 5, 5, 0.1)


@pytest.mark.parametrize(
    "backbone",
    [
        TimmBackboneConfig(backbone="resnet101", out_indices=[1, 2, 3, 4]),
        SwinConfig(embed_dim=192, out_features=["stage1", "stage2", "stage3", "stage4"]),
        VitaResNetConfig(stem_channels=8, res2_channels=16, width_per_group=8),
    ],
    ids=lambda config: config.model_type,
)
def test_round_trip(backbone, tmp_path):
    config = VitaConfig(backbone_config=backbone, num_labels=25, object_encoder_window_size=0, freeze_detector=True)
    config.save_pretrained(tmp_path)
    again = VitaConfig.from_pretrained(tmp_path)
    assert type(again.backbone_config) is type(backbone)
    a, b = config.to_dict(), again.to_dict()
    for noise in ("dtype", "_name_or_path", "transformers_version"):
        a.pop(noise, None), b.pop(noise, None)
    assert a == b


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("num_video_queries", 0, "num_video_queries: expected at least 1, got 0"),
        ("num_video_queries", "many", "num_video_queries"),
        ("object_encoder_window_size", -1, "object_encoder_window_size: expected 0 or more, got -1"),
        ("object_decoder_layers", 0, "object_decoder_layers: expected at least 1"),
        ("decoder_layers", 1, "decoder_layers: expected at least 2"),
        ("num_last_layers", 10, "num_last_layers: expected at most decoder_layers - 1 = 9, got 10"),
        ("num_attention_heads", 7, "num_attention_heads: expected a divisor of hidden_dim = 256, got 7"),
        ("video_num_attention_heads", 3, "video_num_attention_heads: expected a divisor of hidden_dim = 256, got 3"),
        ("hidden_dim", 254, "hidden_dim: expected a multiple of 4, got 254"),
        ("feature_size", 80, "feature_size: expected a multiple of 32, got 80"),
        ("similarity_weight", -0.5, "similarity_weight: expected 0 or more"),
        ("pre_norm", True, "pre_norm: expected False"),
        ("dropout", 1.5, r"dropout: expected a probability"),
        ("oversample_ratio", 0.5, "oversample_ratio: expected at least 1"),
        ("importance_sample_ratio", 1.5, r"importance_sample_ratio: expected a share in \[0, 1\], got 1.5"),
        ("feature_strides", [8, 16, 32, 64], r"feature_strides: expected strides \(4, 8, 16, 32\)"),
        ("common_stride", 8, "common_stride: expected"),
        ("detector_chunk_size", 0, "detector_chunk_size: expected at least 1"),
        ("evaluation_top_k", 0, "evaluation_top_k: expected at least 1, got 0"),
        ("freeze_detector", "yes", "freeze_detector"),
        ("num_labels", 0, "num_labels: expected at least one class"),
        (
            "id2label",
            {1: "cat", 2: "dog"},
            "id2label: expected a name for each class, with the keys 0 to 1, got {1: 'cat'",
        ),
        ("id2label", {0: {}}, "id2label: expected a name for each class|'id2label' with value {0: {}}"),
        ("encoder_layers", 10**9, "encoder_layers: expected at most 1000, got 1000000000"),
        ("id2label", {0: "background", 255: "lesion"}, "id2label: expected .* the keys 0 to 1, got"),
    ],
)
def test_values_out_of_range_name_the_field(field, value, expected):
    with pytest.raises(StrictDataclassError, match=expected):
        VitaConfig(**{field: value})


@pytest.mark.parametrize("model_type", [[], {}, None, 7])
def test_backbone_types_that_are_no_names(model_type):
    with pytest.raises(ValueError, match="backbone_config: transformers does not know the model_type"):
        VitaConfig(backbone_config={"model_type": model_type})


def test_unknown_backbone_type_is_named():
    with pytest.raises(ValueError, match="backbone_config: transformers does not know the model_type 'resnet9000'"):
        VitaConfig(backbone_config={"model_type": "resnet9000"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"depth": 18}, r"depth: expected one of \[50, 101, 152\], got 18"),
        ({"res2_channels": 18}, "res2_channels: expected a multiple of 4"),
        ({"res2_channels": 512, "width_per_group": 33}, "width_per_group: expected a multiple of"),
    ],
)
def test_resnet_widths_out_of_range(fields, expected):
    with pytest.raises(StrictDataclassError, match=expected):
        VitaResNetConfig(**fields)
