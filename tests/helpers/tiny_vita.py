"""The smallest models that training can build, load or optimize."""

from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation

SWIN = {
    "model_type": "swin",
    **{"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4},
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
SIZES = {
    **{"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_attention_heads": 4, "num_queries": 5},
    **{"encoder_layers": 1, "encoder_feedforward_dim": 16, "decoder_layers": 3, "dim_feedforward": 16},
}
VIDEO = {
    **{"num_video_queries": 4, "object_encoder_layers": 1, "object_decoder_layers": 1, "num_last_layers": 2},
    **{"video_num_attention_heads": 4, "video_dim_feedforward": 16},
}
NAMES = {0: "cat", 1: "dog", 2: "fish"}


def tiny(backbone=SWIN, **fields):
    return VitaForVideoInstanceSegmentation(
        VitaConfig(backbone_config=dict(backbone), id2label=NAMES, **{**SIZES, **VIDEO, **fields})
    )
