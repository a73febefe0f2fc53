"""Official VITA checkpoints → this package's models and directories.

A checkpoint holds weights only; what network they belong to is said by its detectron2 YAML, or by the name of one of
[`vita_hf.recipes`]. Nothing is guessed: a key, a shape or a setting that has no place here is an error that names it.
"""

import logging
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cards.model import model_card
from ..configuration_vita import VitaConfig
from ..image_processing_vita import VitaVideoProcessor
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..recipes import config_from_recipe, list_recipes, load_recipe
from .detectron2_config import (
    config_from_detectron2,
    dataset_from_detectron2,
    processor_from_detectron2,
    read_detectron2_yaml,
)

logger = logging.getLogger(__name__)

_PIXEL = "model.pixel_level_module"
_FRAME = "model.transformer_module"

# Original name (the whole of it) → name here; the first row that fits counts. "{qkv}" in the new name stands for three:
# queries, keys and values, stacked along the first axis in the original.
_RENAMES: list[tuple[str, str]] = [
    # ResNet → timm
    (r"backbone\.stem\.conv1\.weight", rf"{_PIXEL}.encoder._backbone.conv1.weight"),
    (r"backbone\.stem\.conv1\.norm\.(\w+)", rf"{_PIXEL}.encoder._backbone.bn1.\1"),
    *(
        (rf"backbone\.res{stage + 1}\.{old}", rf"{_PIXEL}.encoder._backbone.layer{stage}.{new}")
        for stage in (1, 2, 3, 4)
        for old, new in (
            (r"(\d+)\.conv(\d)\.weight", r"\1.conv\2.weight"),
            (r"(\d+)\.conv(\d)\.norm\.(\w+)", r"\1.bn\2.\3"),
            (r"(\d+)\.shortcut\.weight", r"\1.downsample.0.weight"),
            (r"(\d+)\.shortcut\.norm\.(\w+)", r"\1.downsample.1.\2"),
        )
    ),
    # Swin → transformers' SwinBackbone
    (r"backbone\.patch_embed\.proj\.(\w+)", rf"{_PIXEL}.encoder.swin.embeddings.patch_embeddings.projection.\1"),
    (r"backbone\.patch_embed\.norm\.(\w+)", rf"{_PIXEL}.encoder.swin.embeddings.norm.\1"),
    *(
        (rf"backbone\.layers\.(\d+)\.{old}", rf"{_PIXEL}.encoder.swin.encoder.layers.\1.{new}")
        for old, new in (
            (r"blocks\.(\d+)\.norm1\.(\w+)", r"blocks.\2.layernorm_before.\3"),
            (r"blocks\.(\d+)\.norm2\.(\w+)", r"blocks.\2.layernorm_after.\3"),
            (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"blocks.\2.attention.{qkv}_proj.\3"),
            (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\2.attention.o_proj.\3"),
            (
                r"blocks\.(\d+)\.attn\.relative_position_bias_table",
                r"blocks.\2.attention.relative_position_bias.relative_position_bias_table",
            ),
            (r"blocks\.(\d+)\.mlp\.fc([12])\.(\w+)", r"blocks.\2.mlp.fc\3.\4"),
            (r"downsample\.(reduction|norm)\.(\w+)", r"downsample.\2.\3"),
        )
    ),
    *(
        (rf"backbone\.norm{stage - 1}\.(\w+)", rf"{_PIXEL}.encoder.hidden_states_norms.stage{stage}.\1")
        for stage in (1, 2, 3, 4)
    ),
    # Pixel decoder
    *(
        (rf"sem_seg_head\.pixel_decoder\.{old}", rf"{_PIXEL}.decoder.{new}")
        for old, new in (
            (r"transformer\.level_embed", r"level_embed"),
            (r"input_proj\.(\d+)\.([01])\.(\w+)", r"input_projections.\1.\2.\3"),
            (
                r"transformer\.encoder\.layers\.(\d+)\.self_attn\."
                r"(sampling_offsets|attention_weights|value_proj|output_proj)\.(\w+)",
                r"encoder.layers.\1.self_attn.\2.\3",
            ),
            (r"transformer\.encoder\.layers\.(\d+)\.norm1\.(\w+)", r"encoder.layers.\1.self_attn_layer_norm.\2"),
            (r"transformer\.encoder\.layers\.(\d+)\.linear([12])\.(\w+)", r"encoder.layers.\1.fc\2.\3"),
            (r"transformer\.encoder\.layers\.(\d+)\.norm2\.(\w+)", r"encoder.layers.\1.final_layer_norm.\2"),
            (r"mask_features\.(\w+)", r"mask_projection.\1"),
            (r"(adapter|layer)_1\.(weight)", r"\1_1.0.\2"),
            (r"(adapter|layer)_1\.norm\.(\w+)", r"\1_1.1.\2"),
        )
    ),
    # Masked decoder
    (r"sem_seg_head\.predictor\.class_embed\.(\w+)", r"class_predictor.\1"),
    *(
        (rf"sem_seg_head\.predictor\.{old}", rf"{_FRAME}.{new}")
        for old, new in (
            (r"query_embed\.weight", r"queries_embedder.weight"),
            (r"query_feat\.weight", r"queries_features.weight"),
            (r"level_embed\.weight", r"level_embed.weight"),
            (r"input_proj\.(\d)\.(\w+)", r"input_projections.\1.\2"),
            (
                r"transformer_self_attention_layers\.(\d+)\.self_attn\.in_proj_(\w+)",
                r"decoder.layers.\1.self_attn.{qkv}_proj.\2",
            ),
            (
                r"transformer_self_attention_layers\.(\d+)\.self_attn\.out_proj\.(\w+)",
                r"decoder.layers.\1.self_attn.out_proj.\2",
            ),
            (
                r"transformer_self_attention_layers\.(\d+)\.norm\.(\w+)",
                r"decoder.layers.\1.self_attn_layer_norm.\2",
            ),
            # transformers keeps torch's nn.MultiheadAttention for this one: nothing to split.
            (
                r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.([\w.]+)",
                r"decoder.layers.\1.cross_attn.\2",
            ),
            (
                r"transformer_cross_attention_layers\.(\d+)\.norm\.(\w+)",
                r"decoder.layers.\1.cross_attn_layer_norm.\2",
            ),
            (r"transformer_ffn_layers\.(\d+)\.linear([12])\.(\w+)", r"decoder.layers.\1.fc\2.\3"),
            (r"transformer_ffn_layers\.(\d+)\.norm\.(\w+)", r"decoder.layers.\1.final_layer_norm.\2"),
            (r"decoder_norm\.(\w+)", r"decoder.layernorm.\1"),
            (r"mask_embed\.layers\.([012])\.(\w+)", r"decoder.mask_predictor.mask_embedder.\1.0.\2"),
        )
    ),
    # Video part
    (r"vita_module\.vita_mask_features\.(\w+)", r"model.video_mask_projection.\1"),
    (r"vita_module\.input_proj_dec\.(\w+)", r"model.object_encoder.input_projection.\1"),
    *(
        (rf"vita_module\.{old}", rf"model.object_encoder.layers.\1.{new}")
        for old, new in (
            (r"enc_self_attn\.(\d+)\.self_attn\.in_proj_(\w+)", r"self_attn.{qkv}_proj.\2"),
            (r"enc_self_attn\.(\d+)\.self_attn\.out_proj\.(\w+)", r"self_attn.out_proj.\2"),
            (r"enc_self_attn\.(\d+)\.norm\.(\w+)", r"self_attn_layer_norm.\2"),
            (r"enc_ffn\.(\d+)\.linear([12])\.(\w+)", r"fc\2.\3"),
            (r"enc_ffn\.(\d+)\.norm\.(\w+)", r"final_layer_norm.\2"),
        )
    ),
    *(
        (rf"vita_module\.{old}", rf"model.object_decoder.{new}")
        for old, new in (
            (r"query_feat\.weight", r"queries_features.weight"),
            (r"query_embed\.weight", r"queries_embedder.weight"),
            (r"fq_pos\.weight", r"frame_queries_embedder.weight"),
            (
                r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.in_proj_(\w+)",
                r"layers.\1.cross_attn.{qkv}_proj.\2",
            ),
            (
                r"transformer_cross_attention_layers\.(\d+)\.multihead_attn\.out_proj\.(\w+)",
                r"layers.\1.cross_attn.out_proj.\2",
            ),
            (r"transformer_cross_attention_layers\.(\d+)\.norm\.(\w+)", r"layers.\1.cross_attn_layer_norm.\2"),
            (
                r"transformer_self_attention_layers\.(\d+)\.self_attn\.in_proj_(\w+)",
                r"layers.\1.self_attn.{qkv}_proj.\2",
            ),
            (
                r"transformer_self_attention_layers\.(\d+)\.self_attn\.out_proj\.(\w+)",
                r"layers.\1.self_attn.out_proj.\2",
            ),
            (r"transformer_self_attention_layers\.(\d+)\.norm\.(\w+)", r"layers.\1.self_attn_layer_norm.\2"),
            (r"transformer_ffn_layers\.(\d+)\.linear([12])\.(\w+)", r"layers.\1.fc\2.\3"),
            (r"transformer_ffn_layers\.(\d+)\.norm\.(\w+)", r"layers.\1.final_layer_norm.\2"),
            (r"decoder_norm\.(\w+)", r"layernorm.\1"),
        )
    ),
    (r"vita_module\.class_embed\.(\w+)", r"video_class_predictor.\1"),
    (r"vita_module\.mask_embed\.layers\.([012])\.(\w+)", r"video_mask_embedder.\1.0.\2"),
    (r"vita_module\.sim_embed_frame\.(\w+)", r"frame_similarity_embedder.\1"),
    (r"vita_module\.sim_embed_clip\.(\w+)", r"video_similarity_embedder.\1"),
]

# In checkpoints, not needed: the losses' class weights and Swin's window indices follow from the configuration.
_LEFTOVERS = r"(vita_)?criterion\.empty_weight|backbone\..*\.relative_position_index|backbone\..*\.num_batches_tracked"
# In the model, not in checkpoints: transformers' Swin has a last norm that its backbone never uses.
_FRESH = rf"{re.escape(_PIXEL)}\.encoder\.swin\.layernorm\.(weight|bias)"


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """
    Rename an original state dict's tensors to this package's names, splitting stacked attention projections.

    Args:
        state_dict: original name → tensor.
        expected: the model's own `state_dict()`, for its names and shapes; meta tensors will do.

    Returns:
        The tensors under the model's names (views of the originals, not copies), and the known leftovers: original
        names that need no counterpart.

    Raises:
        ValueError: if a tensor has no place in the model, is missing, or has another shape; the message lists every
            one with its shape.
    """
    converted: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    leftovers, unexpected = [], []
    for name, tensor in state_dict.items():
        if re.fullmatch(_LEFTOVERS, name):
            leftovers.append(name)
            continue
        new_name = next((m.expand(new) for old, new in _RENAMES if (m := re.fullmatch(old, name))), None)
        if new_name is None:
            parts = {}
        elif "{qkv}" in new_name:
            parts = {new_name.replace("{qkv}", letter): part for letter, part in zip("qkv", tensor.chunk(3))}
        else:
            parts = {new_name: tensor}
        if not parts or not parts.keys() <= expected.keys():
            unexpected.append(f"{name} {_shape(tensor)}")
            continue
        converted.update(parts)
        origin.update(dict.fromkeys(parts, name))

    missing = [
        f"{name} {_shape(tensor)}"
        for name, tensor in expected.items()
        if name not in converted and not re.fullmatch(_FRESH, name)
    ]
    mismatched = [
        f"{origin[name]} → {name}: expected {_shape(expected[name])}, got {_shape(tensor)}"
        for name, tensor in converted.items()
        if tensor.shape != expected[name].shape
    ]
    problems = [
        f"{title} ({len(lines)}):\n  " + "\n  ".join(lines)
        for title, lines in (
            ("In the checkpoint, without a place in the model", unexpected),
            ("In the model, missing from the checkpoint", missing),
            ("Of another shape", mismatched),
        )
        if lines
    ]
    if problems:
        raise ValueError("the checkpoint does not fit the configuration\n" + "\n".join(problems))
    return converted, leftovers


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a `.pth` file, itself or under "model"; refuses anything that would need code to be run."""
    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    try:
        # Mapped where the format allows, so that an optimizer's state in the file costs no memory.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a file of another kind makes torch raise is anybody's guess
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = (
                f"it holds Python objects ({found[1]}) beside tensors and plain values, and reading those can run "
                "code; if you trust it, save its state dict alone with torch.save"
            )
        else:
            reason = f"not a PyTorch checkpoint, or a damaged one ({type(error).__name__})"
        raise ValueError(f"{path}: refused: {reason}") from error
    state_dict = checkpoint.get("model", checkpoint) if isinstance(checkpoint, Mapping) else checkpoint
    if (
        not isinstance(state_dict, Mapping)
        or not state_dict
        or not all(isinstance(value, torch.Tensor) for value in state_dict.values())
    ):
        raise ValueError(f"{path}: expected a state dict, name → tensor, itself or under 'model'")
    return dict(state_dict)


@dataclass
class _Source:
    """What the two kinds of descriptions, YAML and recipe, come down to."""

    config: VitaConfig
    processor: VitaVideoProcessor
    dataset: str | None
    recipe: str | None


def _source(config_file: str | os.PathLike | None, recipe: str | None) -> _Source:
    if (config_file is None) == (recipe is None):
        raise ValueError(
            "expected either config_file or recipe: a checkpoint does not say which network it belongs to. "
            f"Recipes: {', '.join(list_recipes())}"
        )
    if config_file is not None and str(config_file) in list_recipes() and not Path(config_file).exists():
        recipe = str(config_file)
    if recipe is not None:
        settings = load_recipe(recipe)
        return _Source(
            config_from_recipe(settings),
            VitaVideoProcessor(**settings["processor"]),
            settings["data"]["dataset"],
            recipe,
        )
    cfg = read_detectron2_yaml(config_file)
    return _Source(config_from_detectron2(cfg), processor_from_detectron2(cfg), dataset_from_detectron2(cfg), None)


def _load(weights: str | os.PathLike, config: VitaConfig) -> VitaForVideoInstanceSegmentation:
    original = _read_weights(Path(weights))
    model = VitaForVideoInstanceSegmentation(config)
    state_dict, leftovers = convert_state_dict(original, model.state_dict())
    model.load_state_dict(state_dict, strict=False)  # convert_state_dict has compared the names
    if leftovers:
        counts = Counter(re.sub(r"\d+", "*", name) for name in leftovers)
        logger.warning(
            "Left out of the checkpoint, because nothing depends on it: "
            + ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())
        )
    return model.eval()


def load_original_checkpoint(
    weights: str | os.PathLike, config_file: str | os.PathLike | None = None, recipe: str | None = None
) -> VitaForVideoInstanceSegmentation:
    """
    Load a checkpoint of the original implementation.

    Args:
        weights: the `.pth` file: a state dict, itself or under "model". Only tensors and plain values are read.
        config_file: the detectron2 YAML it was trained with (full or short, with `_BASE_`), or a recipe's name.
        recipe: the name of one of [`vita_hf.recipes.list_recipes`], instead of `config_file`.

    Returns:
        The model in evaluation mode, float32, on the CPU. Checkpoint entries that are not needed are reported once.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if the file holds anything else than tensors and plain values, if the config describes something
            that this package cannot represent, or if names or shapes do not fit; the message lists all of them.

    Example:
    ```python
    >>> from vita_hf.conversion import load_original_checkpoint

    >>> model = load_original_checkpoint("vita_r50_ytvis2019.pth", recipe="ytvis2019-r50")
    ```
    """
    return _load(weights, _source(config_file, recipe).config)


def convert_checkpoint(
    weights: str | os.PathLike,
    output_dir: str | os.PathLike,
    config_file: str | os.PathLike | None = None,
    recipe: str | None = None,
    overwrite: bool = False,
) -> Path:
    """
    Convert a checkpoint of the original implementation into a directory for `from_pretrained`.

    The directory holds the weights (safetensors), the configurations of model and processor, and a model card. It is
    written under another name and renamed at the end: there is never a half-written one.

    Args:
        weights: the `.pth` file, as for [`load_original_checkpoint`].
        output_dir: the directory to write; must not exist or be empty.
        config_file: the detectron2 YAML, or a recipe's name, as for [`load_original_checkpoint`].
        recipe: a recipe's name, instead of `config_file`.
        overwrite: replace an `output_dir` that holds a model, with everything in it.

    Returns:
        The directory's absolute path.

    Raises:
        FileExistsError: if `output_dir` is not empty and `overwrite` is not set, or holds something else than a model.
        FileNotFoundError, ValueError: as for [`load_original_checkpoint`].
    """
    output_dir = Path(output_dir).resolve()
    if output_dir.exists() and not (output_dir.is_dir() and not any(output_dir.iterdir())):
        if not overwrite:
            raise FileExistsError(f"output directory is not empty: {output_dir}")
        if not (output_dir / "config.json").is_file():
            raise FileExistsError(f"not overwritten, because it holds no model (no config.json): {output_dir}")
    source = _source(config_file, recipe)
    model = _load(weights, source.config)

    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}-") as staging:
        new = Path(staging, "new")
        model.save_pretrained(new)
        source.processor.save_pretrained(new)
        card = model_card(source.config, source.dataset, source.recipe)
        (new / "README.md").write_text(card, encoding="utf-8")
        _replace(output_dir, new, aside=Path(staging, "old"))
    return output_dir


def _replace(path: Path, new: Path, aside: Path) -> None:
    """Rename `new` to `path`; what is at `path` already goes `aside`, and comes back if the renaming fails."""
    if not path.exists():
        new.rename(path)
        return
    path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        aside.rename(path)
        raise


__all__ = [
    "config_from_detectron2",
    "convert_checkpoint",
    "convert_state_dict",
    "load_original_checkpoint",
    "processor_from_detectron2",
    "read_detectron2_yaml",
]
