"""Model directories: configurations, the processor, weights and the card."""

import argparse
import json
import random
import shutil
from pathlib import Path

from fuzz.driver import refusals
from fuzz.mutations import mutate_bytes, mutate_json
from fuzz.target_configs import SNIPPETS
from vita_hf.commands import info
from vita_hf.inference.loading import SHIPPED_MODEL, load_model

CARD = "---\nlicense: mit\ndatasets: [coco]\nmodel-index: [{name: a, results: []}]\n---\n# Card\n"


def mutate(rng: random.Random) -> bytes:
    """Make the name of a file, a line break, and its new content."""
    name = rng.choice(
        ("config.json", "config.json", "video_preprocessor_config.json", "README.md", "model.safetensors")
    )
    if name == "model.safetensors":
        head = SHIPPED_MODEL.joinpath(name).read_bytes()[:3000]
        content = mutate_bytes(rng, head)
    elif name == "README.md":
        content = (
            mutate_bytes(rng, CARD.encode()) if rng.random() < 0.7 else f"---\n{rng.choice(SNIPPETS)}---\n".encode()
        )
    else:
        content = mutate_json(rng, json.loads(SHIPPED_MODEL.joinpath(name).read_bytes()))
    return name.encode() + b"\n" + content


def check(path: Path) -> None:
    name, _, content = path.read_bytes().partition(b"\n")
    folder = path.with_name(path.name + "-model")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SHIPPED_MODEL, folder)
    (folder / name.decode()).write_bytes(content)
    with refusals(folder):
        info.run(argparse.Namespace(model=str(folder)))
    with refusals(folder):
        load_model(str(folder))
