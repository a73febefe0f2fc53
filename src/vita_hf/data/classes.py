"""Map the categories of an annotation file to class indices."""

from collections.abc import Mapping
from dataclasses import dataclass

from .annotations import AnnotationError, AnnotationFile, Problem
from .annotations.values import some
from .categories import COCO_TO_DATASET, category_ids, id2label, plain_name


@dataclass(frozen=True)
class ClassChoice:
    """
    The classes that a reader labels annotations with.

    Attributes:
        dataset: The dataset whose categories the file must have. None: the classes are the file's categories, by
            ascending id.
        target: The video dataset that COCO's categories are mapped to.
    """

    dataset: str | None = None
    target: str | None = None

    def resolve(self, file: AnnotationFile) -> tuple[dict[int | str, int | None], tuple[str, ...]]:
        """
        Look up the class of each category of a file.

        Returns:
            The class index of each known category id (None: annotations are dropped), and the names of the classes.

        Raises:
            AnnotationError: if the file has other categories than `dataset`, or none at all.
        """
        labels: dict[int | str, int | None]
        if self.dataset is None:
            file.expect_categories()
            names = tuple(file.categories.values())
            labels = dict(zip(file.categories, range(len(names))))
        else:
            names = tuple(id2label(self.dataset).values())
            labels = dict(zip(category_ids(self.dataset), range(len(names))))
            _check_categories(file, dict(zip(category_ids(self.dataset), names)), self.dataset)
        if self.target is not None:
            # the video datasets number their categories from 1
            mapping = COCO_TO_DATASET[self.target]
            labels = {key: mapping[key] - 1 if key in mapping else None for key in category_ids("coco")}
            names = tuple(id2label(self.target).values())
        return labels, names


def _check_categories(file: AnnotationFile, expected: Mapping[int, str], dataset: str) -> None:
    """Refuse the file of another dataset: its ids must be equal, and half of its names, in any spelling."""
    if not file.categories:
        return
    equal = [plain_name(file.categories.get(key, "")) == plain_name(name) for key, name in expected.items()]
    if file.categories.keys() != expected.keys() or sum(equal) < len(expected) / 2:
        got, wanted = ([f"{key} {name}" for key, name in names.items()] for names in (file.categories, expected))
        message = (
            f"its {len(got)} categories ({some(got[:5])}, …) are not the {len(wanted)} of {dataset} "
            f"({', '.join(wanted[:5])}, …); to read own data, name no dataset"
        )
        raise AnnotationError([Problem("malformed", message, file.path)])
