"""Names of the original implementation's parameters and buffers → names in this package."""

import re
from pathlib import Path

import yaml

# The checkpoints hold these, but the losses' class weights and Swin's indices follow from the configuration.
UNNEEDED = re.compile(r"(vita_)?criterion\.empty_weight|backbone\..*\.(relative_position_index|num_batches_tracked)")
# The checkpoints lack these: transformers' Swin ends in a norm that its backbone never uses.
UNUSED = re.compile(r"model\.pixel_level_module\.encoder\.swin\.layernorm\.(weight|bias)")


def new_names(name: str) -> list[str]:
    """Translate an original name: into one name, into three for q, k and v stacked, or into none if it is unknown."""
    for pattern, template in _RULES:
        if match := pattern.fullmatch(name):
            *words, last_word = match.groups()
            letters = "qkv" if "{qkv}" in template else [""]
            return [template.format(*words, qkv=letter) + last_word for letter in letters]
    return []


def _read_rules() -> list[tuple[re.Pattern, str]]:
    """Read `key_names.yaml` as (pattern of the original name, template of the new name without its last word)."""
    rules = []
    for module in yaml.safe_load((Path(__file__).parent / "key_names.yaml").read_text("utf-8")):
        for original, name in module["names"].items():
            pattern = re.escape(module["original"] + original).replace(r"\*", r"(\w+)") + r"(\w+)"
            rules.append((re.compile(pattern), (module["here"] + name).replace("*", "{}")))
    return rules


_RULES = _read_rules()
