"""Tiny models with random weights, and labels for them."""

from pathlib import Path

import torch
from transformers import ConvNextConfig, ResNetConfig, SwinConfig, TimmBackboneConfig

from vita_hf import VitaConfig, VitaForVideoInstanceSegmentation, VitaVideoProcessor

STAGES = ["stage1", "stage2", "stage3", "stage4"]

DETECTOR = {
    "hidden_dim": 32,
    "feature_size": 32,
    "mask_feature_size": 32,
    "num_attention_heads": 4,
    "encoder_layers": 2,
    "encoder_feedforward_dim": 64,
    "decoder_layers": 4,
    "dim_feedforward": 48,
    "num_queries": 12,
    "num_labels": 7,
    "train_num_points": 64,
}

VIDEO = {
    "num_video_queries": 10,
    "object_encoder_layers": 3,
    "object_encoder_window_size": 2,
    "video_num_attention_heads": 4,
    "video_dim_feedforward": 40,
}


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


BACKBONES = {
    "timm resnet": lambda: TimmBackboneConfig(backbone="resnet18", out_indices=[1, 2, 3, 4], freeze_batch_norm_2d=True),
    "timm convnext": lambda: TimmBackboneConfig(backbone="convnext_atto", out_indices=[0, 1, 2, 3]),
    "swin": lambda: SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 4],
        window_size=4,
        drop_path_rate=0.0,  # so that two runs of a training step agree
        out_features=STAGES,
    ),
    "convnext": lambda: ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=STAGES),
    "resnet": lambda: ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=STAGES
    ),
}


def tiny_config(backbone: str = "swin", **fields) -> VitaConfig:
    return VitaConfig(backbone_config=BACKBONES[backbone](), **{**DETECTOR, **VIDEO, **fields})


def tiny_model(backbone: str = "swin", **fields) -> VitaForVideoInstanceSegmentation:
    """Build a tiny model in which no parameter is zero and no two queries are equal."""
    torch.manual_seed(1)
    return perturbed(VitaForVideoInstanceSegmentation(tiny_config(backbone, **fields)))


def labels(batch: int, frames: int, height: int, width: int, instances: int = 3):
    masks = [torch.rand(instances, frames, height, width) > 0.7 for _ in range(batch)]
    return {"mask_labels": masks, "class_labels": [torch.arange(instances) for _ in range(batch)]}


def gradients(model, video, targets, seed=5):
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(video, **targets).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def save_tiny_model(folder: Path) -> Path:
    """Save the smallest model, with random weights and high scores, and a processor that does not resize."""
    torch.manual_seed(0)
    swin = SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, out_indices=[1, 2, 3, 4])
    config = VitaConfig(
        backbone_config=swin,
        id2label={0: "cat", 1: "dog", 2: "fox", 3: "hen", 4: "owl"},
        hidden_dim=32,
        feature_size=32,
        mask_feature_size=16,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        video_dim_feedforward=32,
        num_attention_heads=2,
        video_num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        num_last_layers=1,
        num_queries=10,
        num_video_queries=5,
        object_encoder_layers=1,
        object_decoder_layers=1,
        detector_chunk_size=4,
    )
    model = VitaForVideoInstanceSegmentation(config)
    with torch.no_grad():
        model.video_class_predictor.weight.mul_(8)
    model.save_pretrained(folder)
    VitaVideoProcessor(do_resize=False).save_pretrained(folder)
    return folder
