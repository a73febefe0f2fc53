"""Checkpoints (`.pth`) of the original implementation."""

import io
import random
import re
import zipfile
from pathlib import Path

import torch

from fuzz.mutations import mutate_bytes
from vita_hf.conversion.weights import convert_state_dict, read_weights

SUFFIX = ".pth"
EXPECTED = {"video_class_predictor.weight": torch.empty(3, 4), "video_class_predictor.bias": torch.empty(3)}
NAMES = ("vita_module.class_embed.weight", "vita_module.class_embed.bias")


def mutate(rng: random.Random) -> bytes:
    """Damage a file, write strange values, or change the entries of its archive."""
    kind = rng.randrange(3)
    if kind == 0:
        return mutate_bytes(rng, _save(_weights(), rng.random() < 0.7))
    if kind == 1:
        return _save(_odd_content(rng), True)
    return _rewrite(rng, _save(_weights(), True))


def check(path: Path) -> None:
    weights = read_weights(path)
    try:
        converted, _ = convert_state_dict(weights, EXPECTED)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    assert converted.keys() == EXPECTED.keys()
    assert all(tensor.float().isfinite().all() for tensor in converted.values())


def _weights() -> dict[str, torch.Tensor]:
    """Make tensors that share one storage."""
    flat = torch.arange(18.0)
    return {NAMES[0]: flat[:12].reshape(3, 4), NAMES[1]: flat[12:15], "criterion.empty_weight": flat[15:]}


def _save(content: object, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    data = file.getvalue()
    # The old format names the storage by its address: number it, so that a seed always gives the same file.
    return data if zipped else re.sub(rb"\d{14,15}", lambda match: b"1" * len(match[0]), data)


def _odd_content(rng: random.Random) -> object:
    weights = _weights()
    name = rng.choice(list(weights))
    tensor = weights[name]
    weights[name] = rng.choice(
        (
            tensor * torch.nan,
            tensor / 0,
            tensor.int(),
            tensor.bool(),
            tensor.to(torch.complex64),
            tensor.half(),
            tensor.double() * 1e300,
            tensor.to(torch.float8_e4m3fn),
            tensor.to_sparse(),
            tensor.expand(10**6, *tensor.shape),
            torch.zeros(1).expand(10**9),
            tensor[:0],
            torch.nn.Parameter(tensor),
            tensor.to("meta"),
            None,
            [1],
            {"a": tensor},
        )
    )
    return rng.choice(
        (weights, {"model": weights}, {**weights, 1: tensor}, {"model": None}, [weights], tensor, "text", {})
    )


def _rewrite(rng: random.Random, content: bytes) -> bytes:
    """Compress, damage, repeat or drop the entries of a zip file."""
    file, compression = io.BytesIO(), rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(file, "w", compression) as target:
        for entry in source.infolist():
            data = source.read(entry)
            if rng.random() < 0.3:
                data = mutate_bytes(rng, data)
            if rng.random() < 0.9:
                target.writestr(rng.choice((entry.filename, entry.filename, "../" + entry.filename)), data)
    return file.getvalue()
