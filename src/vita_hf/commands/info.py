"""`vita-hf info`: what a model is and can do."""

import argparse
import math
from pathlib import Path

from huggingface_hub import ModelCard, get_safetensors_metadata
from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError
from safetensors import SafetensorError, safe_open

from ..configuration_vita import VitaConfig
from ..image_processing_vita import VitaVideoProcessor
from ..inference.loading import first_line, load_config, load_processor

_EXAMPLES = """examples:
  vita-hf info vita-r50-ytvis2019
  vita-hf info owner/name-on-the-hub
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Say what a model is and can do, from its configuration and model card; loads no weights."
    parser.epilog = _EXAMPLES
    parser.add_argument("model", help="directory or Hub id")


def run(args: argparse.Namespace) -> None:
    """Print a line for each fact."""
    config, processor = load_config(args.model), load_processor(args.model)
    facts = {
        "model": args.model,
        "backbone": describe_backbone(config),
        "parameters": describe_parameters(args.model),
        "frames": describe_frames(processor),
        "queries": f"{config.num_queries} a frame, {config.num_video_queries} tracks a video",
        "window": f"{config.object_encoder_window_size} frames"
        if config.object_encoder_window_size
        else "the whole video",
        "layers": f"{config.encoder_layers} pixel decoder, {config.decoder_layers - 1} frame decoder, "
        f"{config.object_encoder_layers} object encoder, {config.object_decoder_layers} object decoder",
        f"classes ({config.num_labels})": ", ".join(config.id2label[label] for label in sorted(config.id2label)),
        **describe_card(args.model),
    }
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:{width}}  {fact}")


def describe_backbone(config: VitaConfig) -> str:
    backbone = config.backbone_config
    if name := getattr(backbone, "backbone", None):
        return f"{name} (timm)"
    sizes = {name: getattr(backbone, name) for name in ("embed_dim", "depths") if hasattr(backbone, name)}
    return " ".join([backbone.model_type, *(f"{name} {size}" for name, size in sizes.items())])


def describe_frames(processor: VitaVideoProcessor) -> str:
    if not processor.do_resize:
        return "as they are"
    size = dict(processor.size)
    if size.get("height"):
        return f"resized to {size['height']}×{size['width']}"
    longest = size.get("longest_edge")
    return f"shorter side resized to {size['shortest_edge']}" + (f", longer to at most {longest}" if longest else "")


def describe_parameters(model: str) -> str:
    """
    How many numbers there are, by type.

    Raises:
        OSError, ValueError: The files can't be read.
    """
    counts: dict[str, int] = {}
    try:
        if Path(model).is_dir():
            for file in sorted(Path(model).glob("*.safetensors")):
                with safe_open(file, "pt") as tensors:
                    for name in tensors.keys():
                        tensor = tensors.get_slice(name)
                        counts[tensor.get_dtype()] = counts.get(tensor.get_dtype(), 0) + math.prod(tensor.get_shape())
        else:
            counts = get_safetensors_metadata(model).parameter_count
    except SafetensorError as error:
        raise ValueError(f"the weights of {model} can't be read: {first_line(error)}") from error
    except (HfHubHTTPError, NotASafetensorsRepoError) as error:
        raise OSError(f"the weights of {model} can't be looked at: {first_line(error)}") from error
    if not counts:
        return "no safetensors file"
    return ", ".join(f"{count / 1e6:.1f} M {dtype}" for dtype, count in sorted(counts.items()))


def describe_card(model: str) -> dict[str, str]:
    """What the model card says of the training."""
    path = Path(model) / "README.md" if Path(model).is_dir() else model
    if isinstance(path, Path) and not path.is_file():
        return {"card": "none, so nothing is known of its training"}
    try:
        data = ModelCard.load(path).data
    except (HfHubHTTPError, OSError, ValueError) as error:
        return {"card": f"can't be read: {first_line(error)}"}

    def listed(value) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    facts = {"trained on": data.datasets, "starting from": data.base_model, "licence": data.license}
    facts = {name: listed(value) for name, value in facts.items() if value}
    for result in data.eval_results or []:
        name = f"{result.metric_name or result.metric_type} on {result.dataset_name}"
        facts[name] = f"{result.metric_value}" + (f" ({result.source_name})" if result.source_name else "")
    return facts or {"card": "says nothing of its training"}
