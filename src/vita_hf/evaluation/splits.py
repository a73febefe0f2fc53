"""Run a model over a split on any number of processes, resumably, and write what the evaluation servers take.

Each video's (or image's) results go to a file of their own as soon as it is done; an interrupted run starts again where
it stopped. Processes share the work through the output directory, which all of them must see.
"""

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm.auto import tqdm

from ..data.categories import plain_name
from ..files import write_atomically
from ..image_processing_vita import VitaVideoProcessor
from ..inference.loading import describe_model
from ..inference.offline import VideoStream, segment_video
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..scoring import VisEvaluator
from ..video.sources import image_size


@dataclass(frozen=True)
class Clip:
    """A video, or an image as a video of one frame: its id, its frames' paths, and (height, width)."""

    id: int
    frames: list[Path]
    size: tuple[int, int]


@dataclass(frozen=True)
class Split:
    """What is to be segmented.

    Attributes:
        path: the annotation file.
        clips: in the file's order.
        categories: the file's, `{"id", "name"}`, by id.
        of_images: whether the file is COCO's (images), not YouTube-VIS's (videos).
        annotated: whether it has annotations to score against.
    """

    path: Path
    clips: list[Clip]
    categories: list[dict[str, Any]]
    of_images: bool
    annotated: bool


def read_split(annotations: str | os.PathLike, images: str | os.PathLike) -> Split:
    """Read which videos (YouTube-VIS, OVIS) or images (COCO) a split has, and check that all frames are there.

    Args:
        annotations: json with `videos` or `images`, `categories`, and maybe `annotations`.
        images: the folder that the file names in it are relative to.

    Raises:
        FileNotFoundError: the file, the folder or frames are missing; names up to five of them.
        ValueError: the json is not such a file.
    """
    path, folder = Path(annotations), Path(images)
    if not path.is_file():
        raise FileNotFoundError(f"no such annotation file: {path}")
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of frames: {folder}")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not json: {error}") from None
    if not isinstance(content, dict) or "categories" not in content or not {"videos", "images"} & content.keys():
        raise ValueError(f"{path}: expected an object with 'categories' and 'videos' (or, for COCO, 'images')")
    of_images = "videos" not in content
    clips = []
    for number, entry in enumerate(content[table := "images" if of_images else "videos"]):
        try:
            names = [entry["file_name"]] if of_images else entry["file_names"]
            clips.append(Clip(entry["id"], [folder / name for name in names], (entry["height"], entry["width"])))
        except (KeyError, TypeError) as error:
            expected = f"id, height, width and {'file_name' if of_images else 'file_names'}"
            raise ValueError(f"{path}, {table}[{number}]: expected {expected}; {error!r}") from None
    if not clips:
        raise ValueError(f"{path} lists no {'images' if of_images else 'videos'}")
    missing = [str(frame) for clip in clips for frame in clip.frames if not frame.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} frames that {path} names are not below {folder}, for example {', '.join(missing[:5])}"
        )
    for number, category in enumerate(content["categories"]):
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys():
            raise ValueError(f"{path}, categories[{number}]: expected id and name, got {category!r}")
    categories = sorted(content["categories"], key=lambda category: category["id"])
    return Split(path, clips, categories, of_images, bool(content.get("annotations")))


def check_split(split: Split, id2label: dict[int, str]) -> None:
    """Complain before any work about what a run over a split would fail at in its end: the classes, the ground truth.

    Args:
        split: with annotations or without.
        id2label: the model's classes.

    Raises:
        ValueError: says what does not fit.
    """
    category_ids(id2label, split.categories)
    if split.annotated:
        _read_images_truth(split.path) if split.of_images else VisEvaluator(split.path)


def category_ids(id2label: dict[int, str], categories: list[dict[str, Any]]) -> dict[int, int]:
    """Which category of the annotation file each class of the model is, by name; by order if it has no names.

    Raises:
        ValueError: the names, or without names the numbers, differ; says which.
    """
    if all(name == f"LABEL_{label}" for label, name in id2label.items()):
        if len(id2label) != len(categories):
            raise ValueError(f"the model has {len(id2label)} classes, the annotation file {len(categories)} categories")
        return dict(zip(sorted(id2label), (category["id"] for category in categories)))
    by_name = {plain_name(category["name"]): category["id"] for category in categories}
    ours = {plain_name(name) for name in id2label.values()}
    if ours != by_name.keys():
        raise ValueError(
            "the model's classes are not the annotation file's categories: only the model has "
            f"{sorted(ours - by_name.keys())[:5]}, only the file {sorted(by_name.keys() - ours)[:5]}"
        )
    return {label: by_name[plain_name(name)] for label, name in id2label.items()}


class ResultStore:
    """Finished clips' results, one file each, below `folder/parts`.

    Args:
        folder: the output directory.
        run: what the results depend on; kept in `folder/run.json`.

    Raises:
        ValueError: the directory holds results of another run.
    """

    def __init__(self, folder: str | os.PathLike, run: dict[str, Any]):
        self.folder = Path(folder)
        self.parts = self.folder / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        record = self.folder / "run.json"
        if record.is_file():
            before = json.loads(record.read_text())
            changed = sorted(key for key in before.keys() | run.keys() if before.get(key) != run.get(key))
            if changed:
                raise ValueError(
                    f"{self.folder} holds results of another run ({', '.join(changed)} differ): choose another output "
                    "directory or remove this one"
                )
        else:
            write_atomically(record, json.dumps(run, indent=2).encode())

    def path(self, clip: Clip) -> Path:
        return self.parts / f"{clip.id}.json"

    def save(self, clip: Clip, results: list[dict]) -> None:
        write_atomically(self.path(clip), json.dumps(results).encode())

    def collect(self, clips: Iterable[Clip]) -> Iterator[list[dict]]:
        """Each clip's results, in order."""
        for clip in clips:
            yield json.loads(self.path(clip).read_text())


def describe_run(model_path: str, split: Split, **settings: Any) -> dict[str, Any]:
    """What a run's results depend on, comparable after a restart: model, annotation file, settings."""
    digest = hashlib.sha256(split.path.read_bytes()).hexdigest()
    return {"model": describe_model(model_path), "annotations": digest, **settings}


def segment(
    model: VitaForVideoInstanceSegmentation, processor: VitaVideoProcessor, clip: Clip, split: Split, top_k: int
) -> list[dict]:
    """One clip's results, in YouTube-VIS's form or, for an image, in COCO's, by the paper's top-k rule."""
    ids = category_ids(model.config.id2label, split.categories)
    found_size = image_size(clip.frames[0])
    if found_size != tuple(clip.size):
        raise ValueError(
            f"{clip.frames[0].parent}: {split.path} says that its frames are {clip.size[0]}×{clip.size[1]}, they are "
            f"{found_size[0]}×{found_size[1]}"
        )
    found = segment_video(
        model,
        VideoStream(processor, clip.frames, name=f"video {clip.id}"),
        top_k=top_k,
        threshold=0.0,
        one_label_per_query=False,
        mask_features="exact",  # so that scores do not depend on how much memory there is
        progress=False,
    )
    results = found.to_ytvis(clip.id, ids)
    if not split.of_images:
        return results
    return [
        {
            "image_id": clip.id,
            "category_id": result["category_id"],
            "score": result["score"],
            "segmentation": result["segmentations"][0],
        }
        for result in results
    ]


def segment_split(
    model: VitaForVideoInstanceSegmentation,
    processor: VitaVideoProcessor,
    split: Split,
    store: ResultStore,
    top_k: int,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Segment this process's share of the clips that are not done yet."""
    category_ids(model.config.id2label, split.categories)  # complain before any work
    todo = [clip for clip in split.clips[process::processes] if not store.path(clip).is_file()]
    for clip in tqdm(todo, desc="segmenting", unit="clip", disable=process != 0):
        store.save(clip, segment(model, processor, clip, split, top_k))


def write_results(results: Iterable[list[dict]], folder: Path, zipped: bool) -> Path:
    """Write `results.json`, and `submission.zip` with nothing but that file, as the servers want it."""
    content = json.dumps([entry for part in results for entry in part]).encode()
    write_atomically(folder / "results.json", content)
    if zipped:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            # a fixed date, so that equal results give equal files
            archive.writestr(zipfile.ZipInfo("results.json", (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
        write_atomically(folder / "submission.zip", buffer.getvalue())
    return folder / "results.json"


def score_images(annotations: str | os.PathLike, results: str | os.PathLike) -> dict[str, Any]:
    """COCO's mask scores by pycocotools, with AP per category under `per_category`."""
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    truth = _read_images_truth(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        found = json.loads(Path(results).read_text())
        if not found:
            return {**dict.fromkeys(names, 0.0), "per_category": {}}
        scorer = COCOeval(truth, truth.loadRes(found), "segm")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    precision = scorer.eval["precision"][:, :, :, 0, 2]  # thresholds × recalls × categories, all areas, 100 detections
    per_category = {}
    for index, category in enumerate(truth.loadCats(scorer.params.catIds)):
        values = precision[:, :, index]
        per_category[category["name"]] = float(values.mean()) if (values > -1).any() else -1.0
    return {**dict(zip(names, map(float, scorer.stats))), "per_category": per_category}


def _read_images_truth(annotations: str | os.PathLike) -> COCO:
    """With `iscrowd` and `area` where the file leaves them out, as own data may."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotations))
        for key, annotation in truth.anns.items():
            try:
                mask = truth.annToRLE(annotation)
            except Exception as error:  # pycocotools raises bare ones
                raise ValueError(
                    f"{annotations}, annotation {key}: no segmentation in COCO's form: {error!r}"
                ) from None
            annotation.setdefault("iscrowd", 0)
            annotation.setdefault("area", float(mask_api.area(mask)))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{annotations}: expected COCO's form; pycocotools failed with {error!r}") from None
    return truth


__all__ = [
    "Clip",
    "ResultStore",
    "Split",
    "category_ids",
    "check_split",
    "describe_run",
    "read_split",
    "score_images",
    "segment_split",
    "write_results",
]
