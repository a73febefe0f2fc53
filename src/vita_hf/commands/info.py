"""`vita-hf info`: describe a model."""

import argparse
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData, get_local_safetensors_metadata, get_safetensors_metadata, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError, SafetensorsParsingError
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ..configuration_vita import VitaConfig
from ..image_processing_vita import VitaVideoProcessor
from ..inference.loading import first_line, load_config, load_processor
from ..recipes.plain_yaml import load_yaml
from ..text import counted


def run(args: argparse.Namespace) -> None:
    """Print one fact per line."""
    config, processor = load_config(args.model), load_processor(args.model)
    window, labels = config.object_encoder_window_size, sorted((config.id2label or {}).items())
    facts = {
        "model": args.model,
        "backbone": describe_backbone(config),
        "parameters": describe_parameters(args.model),
        "frames": describe_frames(processor),
        "queries": f"{config.num_queries} a frame, {counted(config.num_video_queries, 'track')} a video",
        "window": counted(window, "frame") if window else "the whole video",
        "layers": f"{config.encoder_layers} pixel decoder, {config.decoder_layers - 1} frame decoder, "
        f"{config.object_encoder_layers} object encoder, {config.object_decoder_layers} object decoder",
        f"classes ({len(labels)})": ", ".join(name for _, name in labels),
        **describe_card(args.model),
    }
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:{width}}  {fact}")


def describe_backbone(config: VitaConfig) -> str:
    """Name the backbone, with its sizes unless timm's name tells them."""
    backbone: Any = config.backbone_config
    if name := getattr(backbone, "backbone", None):
        return f"{name} (timm)"
    sizes = [f"{name} {getattr(backbone, name)}" for name in ("embed_dim", "depths") if hasattr(backbone, name)]
    return " ".join([backbone.model_type, *sizes])


def describe_frames(processor: VitaVideoProcessor) -> str:
    """Describe how frames are resized."""
    if not processor.do_resize:
        return "not resized"
    size = dict(processor.size)
    if size.get("height"):
        return f"resized to {size['height']}×{size['width']}"
    longest = size.get("longest_edge")
    return f"shorter side resized to {size['shortest_edge']}" + (f", longer to at most {longest}" if longest else "")


def describe_parameters(model: str) -> str:
    """Count the parameters by dtype."""
    try:
        metadata = get_local_safetensors_metadata(model) if Path(model).is_dir() else get_safetensors_metadata(model)
    except NotASafetensorsRepoError:
        return "unknown, because there is no safetensors file"
    except (HfHubHTTPError, SafetensorsParsingError) as error:
        raise OSError(f"cannot read the weights of {model}: {first_line(error)}") from error
    return ", ".join(f"{count / 1e6:.1f} M {dtype}" for dtype, count in sorted(metadata.parameter_count.items()))


def describe_card(model: str) -> dict[str, str]:
    """Return what the model card tells about the training."""
    path = Path(model, "README.md")
    if Path(model).is_dir() and not path.is_file():
        return {"card": "none, so the training is unknown"}
    try:
        if not path.is_file():
            path = Path(hf_hub_download(model, "README.md"))
        text = path.read_text(encoding="utf-8")
        header = REGEX_YAML_BLOCK.search(text)
        settings: Any = load_yaml(header[2]) if header else None
        data = ModelCardData(**(settings or {}))
    except Exception as error:  # foreign metadata makes huggingface_hub raise almost anything
        return {"card": f"unreadable: {first_line(error)}"}

    facts = {}
    for name, value in {"trained on": data.datasets, "starting from": data.base_model, "license": data.license}.items():
        if value:
            facts[name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    for result in data.eval_results or []:
        source = f" ({result.source_name})" if result.source_name else ""
        facts[f"{result.metric_name or result.metric_type} on {result.dataset_name}"] = f"{result.metric_value}{source}"
    return facts or {"card": "tells nothing about the training"}
