"""Which class a category of an annotation file is."""

from collections.abc import Mapping
from dataclasses import dataclass

from .annotations.problems import AnnotationError, Problem
from .annotations.reader import AnnotationFile
from .categories import COCO_TO_DATASET, category_ids, id2label, plain_name


@dataclass(frozen=True)
class ClassChoice:
    """
    How a reader is told about classes; hashable, part of the cache key.

    Attributes:
        dataset: the data set whose categories the file has; `None`: whatever the file lists, by ascending id.
        target: the video data set that COCO's categories are mapped to.
    """

    dataset: str | None = None
    target: str | None = None

    def resolve(self, file: AnnotationFile) -> tuple[dict[int, int | None], tuple[str, ...]]:
        """
        Returns:
            The class index of each category id that annotations may have (`None`: dropped), and the classes' names.

        Raises:
            AnnotationError: the file's categories are not those that were promised.
        """
        if self.dataset is None and not file.categories:
            _fail(file, "expected a list of categories")
        names = tuple(file.categories.values())
        labels: dict[int, int | None] = dict(zip(file.categories, range(len(names))))
        if self.dataset is not None:
            names = tuple(id2label(self.dataset).values())
            labels = dict(zip(category_ids(self.dataset), range(len(names))))
            _compare(file, dict(zip(labels, names)), self.dataset)
        if self.target is not None:
            mapped = COCO_TO_DATASET[self.target]
            # the video data sets number their categories from 1
            labels = {key: mapped[key] - 1 if key in mapped else None for key in labels}
            names = tuple(id2label(self.target).values())
        return labels, names


def _compare(file: AnnotationFile, expected: Mapping[int, str], dataset: str) -> None:
    """Notices a file of another data set. Spelling is left alone: only ids count, and half of the names."""
    if not file.categories:
        return
    agree = sum(plain_name(file.categories.get(key, "")) == plain_name(name) for key, name in expected.items())
    if file.categories.keys() != expected.keys() or agree < len(expected) / 2:
        listed = ", ".join(f"{key} {name}" for key, name in list(file.categories.items())[:5])
        wanted = ", ".join(f"{key} {name}" for key, name in list(expected.items())[:5])
        _fail(
            file,
            f"its {len(file.categories)} categories ({listed}, …) are not the {len(expected)} of {dataset} "
            f"({wanted}, …); own data is read without naming a data set",
        )


def _fail(file: AnnotationFile, message: str):
    raise AnnotationError([Problem("malformed", message, file.path)])


__all__ = ["ClassChoice"]
