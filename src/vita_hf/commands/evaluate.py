"""`vita-hf evaluate`: score a model on a dataset split, or prepare a submission."""

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..data.annotations import read_annotations
from ..evaluation.run import segment_split
from ..evaluation.splits import check_split, read_split
from ..files import atomic_path, check_writable, hash_content, write_atomically
from ..inference.loading import describe_model, load_model
from ..scoring import VisEvaluator
from ..scoring.coco import NUMBERS, score_images
from ..text import counted


def run(args: argparse.Namespace) -> None:
    """Segment this process's share of the split; the main process writes the results and prints the scores."""
    for name, least in {"top_k": 1, "worst": 0}.items():
        value = getattr(args, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')}: expected at least {least}, got {value}")
    if args.results is not None:
        if any(value is not None for value in (args.model, args.images, args.output)):
            raise ValueError("--results: expected neither --model nor --images nor --output")
        of_images = read_annotations(args.annotations).form == "coco"
        print_scores(args.annotations, args.results, of_images, args.worst)
        return
    if None in (args.model, args.images, args.output):
        raise ValueError("expected --model, --images and --output, or --results")

    check_writable(args.output)
    accelerator = Accelerator(cpu=args.cpu)
    split = read_split(args.annotations, args.images, args.follow_links)
    model, processor = load_model(args.model, dtype=args.dtype)
    check_split(split, model.config.id2label or {})
    top_k = args.top_k or model.config.evaluation_top_k
    clips = counted(len(split.clips), "image" if split.of_images else "video")
    categories, processes = counted(len(split.categories), "category"), counted(accelerator.num_processes, "process")
    accelerator.print(f"{clips}, {categories}, top {top_k}, {processes} on {accelerator.device}")
    checksum = hash_content(split.path)
    images = str(args.images.resolve())
    inputs = {"model": describe_model(args.model), "annotations": checksum, "images": images, "dtype": args.dtype}
    model.to(accelerator.device)
    results = segment_split(accelerator, model, processor, split, args.output, top_k, inputs)
    if accelerator.is_main_process:
        print(f"Written: {results}")
        upload = results if split.of_images else write_submission(results)
        if split.annotated:
            scores = print_scores(args.annotations, results, split.of_images, args.worst)
            write_atomically(args.output / "scores.json", json.dumps(scores, indent=2).encode())
        else:
            print(f"{args.annotations} has no annotations, so there is nothing to score against.")
            print(f"Upload {upload} to the evaluation server, or score on a held-out part of the training set.")
    accelerator.end_training()


def write_submission(results: Path) -> Path:
    """Pack a `results.json` alone into `submission.zip` beside it, as the evaluation servers want it."""
    path = results.with_name("submission.zip")
    entry = zipfile.ZipInfo("results.json", (1980, 1, 1, 0, 0, 0))  # a fixed date: equal results give equal files
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(entry, results.read_bytes(), zipfile.ZIP_DEFLATED)
    return path


def print_scores(annotations: Path, results: Path, of_images: bool, worst: int) -> dict[str, Any]:
    """Score a `results.json`; print the scores, and the `worst` videos with the lowest AP, as Markdown tables."""
    videos: list[dict[str, Any]] = []
    if of_images:
        scores = score_images(annotations, results)
        categories = [{"category": name, "AP": ap} for name, ap in scores["per_category"].items()]
    else:
        evaluator = VisEvaluator(annotations)
        evaluator.add(results)
        scores, categories = evaluator.compute(), evaluator.category_table()
        videos = evaluator.video_table()[:worst] if worst else []
    tables = [[{name: scores[name] for name in NUMBERS}], categories]
    if by_occlusion := {name: scores[name] for name in scores if name in ("AP_slight", "AP_moderate", "AP_heavy")}:
        tables.insert(1, [by_occlusion])
    print("\n\n".join(map(score_table, tables)))
    if videos:
        print(f"\nThe {counted(len(videos), 'video')} with the lowest scores:\n{score_table(videos)}")
    if any(_is_missing(value) for rows in [*tables, videos] for row in rows for value in row.values()):
        print("\n–: nothing to score, because the annotations have no such objects")
    return scores


def score_table(rows: list[dict[str, Any]]) -> str:
    """Format scores as a Markdown table, with a dash where there is nothing to score."""
    return markdown_table([{name: "–" if _is_missing(value) else value for name, value in row.items()} for row in rows])


def _is_missing(value: Any) -> bool:
    """Tell whether a score is the −1 that stands for "no objects" in COCO's evaluation."""
    return isinstance(value, float) and value == -1


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Format rows with the same keys as a Markdown table, with four decimals."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    for row in rows:
        lines.append([f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
