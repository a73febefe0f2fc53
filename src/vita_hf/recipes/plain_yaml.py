"""Read YAML of foreign origin: short texts whose aliases do not multiply."""

import yaml

MAX_CHARACTERS = 200_000
MAX_VALUES = 100_000  # after aliases are expanded


def load_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> object:
    """
    Load plain data. A few lines of aliases of aliases (`*name`) can stand for billions of values: they are refused.

    Args:
        text: The YAML.
        loader: `yaml.SafeLoader`, or a subclass of it.

    Raises:
        ValueError: if it is not YAML, too long or nested too deeply, or stands for more than 100,000 values.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"expected at most {MAX_CHARACTERS} characters of YAML, got {len(text)}")
    try:
        reader = loader(text)
        node = reader.get_single_node()
        if node is None:
            return None
        if _count_values(node, {}) > MAX_VALUES:
            raise ValueError(f"its aliases stand for more than {MAX_VALUES} values")
        return reader.construct_document(node)
    except RecursionError:
        raise ValueError("not a YAML file of plain settings: nested too deeply, or inside itself") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:  # dates raise the others
        raise ValueError(f"not a YAML file of plain settings: {' '.join(str(error).split())}") from None


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count a node and all nodes below it, those behind aliases each time they are named."""
    if id(node) not in known:
        children = node.value if isinstance(node, (yaml.SequenceNode, yaml.MappingNode)) else ()
        flat = [each for child in children for each in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_count_values(child, known) for child in flat)
    return known[id(node)]
