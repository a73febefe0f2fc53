"""Categories of the datasets that VITA is trained on, and the maps from COCO's categories for joint training.

A model's labels are the positions in these lists, from 0. The ids in annotation files differ: they start at 1 and have
no gaps in YouTube-VIS and OVIS, but gaps in COCO (see [`category_ids`]).

Names are spelled as in the annotation files (even OVIS's "Vehical"). The maps from COCO's categories to the video
datasets' are those of the VITA authors' released code.
"""

import unicodedata

# fmt: off
CATEGORIES: dict[str, tuple[str, ...]] = {
    "coco": (
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
        "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
        "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
        "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
        "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
        "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
        "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
        "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
        "teddy bear", "hair drier", "toothbrush",
    ),
    "ytvis2019": (
        "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake", "monkey",
        "hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear", "motorbike", "giraffe",
        "leopard", "fox", "deer", "owl", "surfboard", "airplane", "truck", "zebra", "tiger", "elephant",
        "snowboard", "boat", "shark", "mouse", "frog", "eagle", "earless_seal", "tennis_racket",
    ),
    "ytvis2021": (
        "airplane", "bear", "bird", "boat", "car", "cat", "cow", "deer", "dog", "duck", "earless_seal", "elephant",
        "fish", "flying_disc", "fox", "frog", "giant_panda", "giraffe", "horse", "leopard", "lizard", "monkey",
        "motorbike", "mouse", "parrot", "person", "rabbit", "shark", "skateboard", "snake", "snowboard",
        "squirrel", "surfboard", "tennis_racket", "tiger", "train", "truck", "turtle", "whale", "zebra",
    ),
    "ovis": (
        "Person", "Bird", "Cat", "Dog", "Horse", "Sheep", "Cow", "Elephant", "Bear", "Zebra", "Giraffe", "Poultry",
        "Giant_panda", "Lizard", "Parrot", "Monkey", "Rabbit", "Tiger", "Fish", "Turtle", "Bicycle", "Motorcycle",
        "Airplane", "Boat", "Vehical",
    ),
    "synthetic": ("disc", "square", "triangle", "star", "flower", "peanut"),
}
# fmt: on

# COCO numbered 91 categories and released annotations for 80 of them.
_COCO_ID_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

# fmt: off
COCO_TO_DATASET: dict[str, dict[int, int]] = {
    "ytvis2019": {
        1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18, 21: 15, 22: 32, 23: 20,
        24: 30, 25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40,
    },
    "ytvis2021": {
        1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9, 19: 19, 21: 7, 22: 12, 23: 2,
        24: 40, 25: 18, 34: 14, 35: 31, 36: 31, 41: 29, 42: 33, 43: 34,
    },
    "ovis": {
        1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 17: 3, 18: 4, 19: 5, 20: 6, 21: 7, 22: 8, 23: 9,
        24: 10, 25: 11,
    },
}
# fmt: on
"""COCO category id → category id of the video dataset. COCO annotations of other categories are dropped."""


def _categories(dataset: str) -> tuple[str, ...]:
    if dataset not in CATEGORIES:
        raise ValueError(f"dataset: expected one of {', '.join(CATEGORIES)}, got {dataset!r}")
    return CATEGORIES[dataset]


def id2label(dataset: str) -> dict[int, str]:
    """
    Return the names of a model's labels.

    Args:
        dataset: The dataset: "coco" (80 labels), "ytvis2019" (40), "ytvis2021" (40), "ovis" (25) or "synthetic" (6, see
            [`vita_hf.data.synthetic`]).

    Raises:
        ValueError: if the dataset is unknown.
    """
    return dict(enumerate(_categories(dataset)))


def category_ids(dataset: str) -> tuple[int, ...]:
    """
    Return the `category_id` of each label in the dataset's annotation files.

    Args:
        dataset: The dataset, as for [`id2label`].

    Raises:
        ValueError: if the dataset is unknown.
    """
    categories = _categories(dataset)
    if dataset == "coco":
        return tuple(i for i in range(1, 91) if i not in _COCO_ID_GAPS)
    return tuple(range(1, len(categories) + 1))


def plain_name(name: str) -> str:
    """Normalize a category's name for comparisons: "Giant_panda" and "giant-panda" become "giant panda"."""
    return unicodedata.normalize("NFC", name).lower().replace("_", " ").replace("-", " ").strip()
