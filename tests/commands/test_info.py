"""`vita-hf info`."""

import shutil

import pytest

from vita_hf.commands.main import main
from vita_hf.inference.loading import load_model


@pytest.fixture
def model(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def facts(model, capsys) -> dict[str, str]:
    main(["info", str(model)])
    lines = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    return {name.strip(): fact.strip() for name, fact in lines}


def test_facts_of_a_model(model, capsys):
    printed = facts(model, capsys)
    count = load_model(model)[0].num_parameters()
    assert printed["parameters"] == f"{count / 1e6:.1f} M F32"
    assert printed["classes (5)"] == "cat, dog, fox, hen, owl"
    assert printed["queries"] == "10 a frame, 5 tracks a video" and printed["window"] == "6 frames"
    assert printed["backbone"] == "swin embed_dim 8 depths [1, 1, 1, 1]" and printed["frames"] == "not resized"
    assert printed["card"] == "none, so the training is unknown"


def test_facts_in_the_model_card(model, capsys):
    (model / "README.md").write_text("---\nlicense: mit\ndatasets:\n- coco\n- ovis\nbase_model: a/b\n---\n# Card\n")
    printed = facts(model, capsys)
    assert printed["trained on"] == "coco, ovis"
    assert printed["license"] == "mit"
    assert printed["starting from"] == "a/b"


def test_missing_and_damaged_files(model, capsys):
    (model / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SystemExit, match="1"):
        main(["info", str(model)])
    assert capsys.readouterr().err.startswith(f"error: cannot read the weights of {model}: ")
    (model / "model.safetensors").unlink()
    assert facts(model, capsys)["parameters"] == "unknown, because there is no safetensors file"
    (model / "config.json").unlink()
    with pytest.raises(SystemExit, match="1"):
        main(["info", str(model)])
    assert capsys.readouterr().err == f"error: {model} holds no model: config.json is missing\n"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n", None),
        (
            "".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10) if i else 1}]\n" for i in range(9)),
            "its aliases stand for more than 100000 values",
        ),
        ("[" * 5000, "nested too deeply"),
        ("- 1", "TypeError"),
        ("model-index: 5", "TypeError"),
    ],
)
def test_hostile_headers_of_the_model_card(model, capsys, header, reason):
    (model / "README.md").write_text(f"---\n{header}\n---\n# Card\n")
    card = facts(model, capsys)["card"]
    if reason:
        assert card.startswith("unreadable: ") and reason in card
    else:
        assert card == "tells nothing about the training"
