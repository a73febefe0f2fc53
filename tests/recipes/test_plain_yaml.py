"""YAML of foreign origin."""

import pytest

from vita_hf.recipes.plain_yaml import load_yaml

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)


def test_plain_values():
    assert load_yaml("a: [1, 2.5, x]\nb: {c: null}") == {"a": [1, 2.5, "x"], "b": {"c": None}}
    assert load_yaml("") is None
    assert load_yaml("base: &base {x: 1}\nother: {<<: *base, y: 2}\nlast: *base") == {
        "base": {"x": 1},
        "other": {"x": 1, "y": 2},
        "last": {"x": 1},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "its aliases stand for more than 100000 values"),
        ("a: &a [*a]", "nested too deeply, or inside itself"),
        ("[" * 3000 + "]" * 3000, "nested too deeply, or inside itself"),
        ("a: {", "not a YAML file of plain settings: while parsing"),
        ("a: 2020-99-99", "not a YAML file of plain settings: month must be in"),
        ("{[1]: 2}", "not a YAML file of plain settings: [\\s\\S]*unhashable key"),
        (
            "!!python/object/apply:os.system [ls]",
            "not a YAML file of plain settings: could not determine a constructor",
        ),
        ("a: 1\n" * 50_000, "expected at most 200000 characters of YAML, got 250000"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=message):
        load_yaml(text)
