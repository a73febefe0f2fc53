"""Run a model over a split of YouTube-VIS, OVIS or COCO, and score it where annotations are there to score against.

Works alone or under `accelerate launch`, on any number of processes that share the output directory. Results are kept
clip by clip: call it again after an interruption and it goes on where it stopped.
"""

import argparse
import json
import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import AutoModelForUniversalSegmentation, AutoVideoProcessor

import vita_hf  # noqa: F401 - registers the model
from vita_hf.evaluation.splits import (
    ResultStore,
    check_split,
    describe_run,
    read_split,
    score_images,
    segment_split,
    write_results,
)
from vita_hf.files import write_atomically
from vita_hf.scoring import VisEvaluator

EXAMPLE = """examples:
  accelerate launch scripts/evaluate.py --model vita-r50-ytvis2019 --output out \\
      --annotations ytvis_2019/valid.json --images ytvis_2019/valid/JPEGImages
  python scripts/evaluate.py --annotations split.json --results out/results.json --worst 10

The official YouTube-VIS and OVIS validation and test sets have no public annotations: upload submission.zip to their
evaluation servers, or score on a split of the training set.
"""
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", type=Path, required=True, help="json of YouTube-VIS, OVIS or COCO instances")
    parser.add_argument("--model", help="directory or Hub id of a model with its processor")
    parser.add_argument("--images", type=Path, help="folder that the annotation file's frame names are relative to")
    parser.add_argument("--output", type=Path, help="directory for results.json, submission.zip and scores.json")
    parser.add_argument("--results", type=Path, help="score this results.json instead of running a model")
    parser.add_argument("--top-k", type=int, help="tracks kept of a clip; default 10, for images 100 (OVIS: 20)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="also list the N videos with the lowest scores"
    )
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU even if there is a GPU")
    args = parser.parse_args(argv)
    if args.results is None and None in (args.model, args.images, args.output):
        parser.error("expected --model, --images and --output, or --results")
    return args


def print_scores(scores: dict, table: list[dict]) -> None:
    print("| " + " | ".join(NUMBERS) + " |\n|" + "---|" * len(NUMBERS))
    print("| " + " | ".join(f"{scores[name]:.4f}" for name in NUMBERS) + " |")
    for name in ("AP_slight", "AP_moderate", "AP_heavy"):
        if name in scores:
            print(f"{name} {scores[name]:.4f}")
    if table:
        columns = list(table[0])
        print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
        for row in table:
            cells = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()]
            print("| " + " | ".join(cells) + " |")


def score(annotations: Path, results: Path, of_images: bool, worst: int) -> dict:
    """Print the scores of a results file, and return them."""
    if of_images:
        scores = score_images(annotations, results)
        print_scores(scores, [{"category": name, "AP": ap} for name, ap in scores["per_category"].items()])
        return scores
    evaluator = VisEvaluator(annotations)
    evaluator.add(results)
    scores = evaluator.compute()
    print_scores(scores, evaluator.category_table())
    if worst:
        print(f"\nThe {worst} videos with the lowest scores:")
        for row in evaluator.video_table()[:worst]:
            print(
                f"  video {row['id']}: AP {row['AP']:.4f}, {row['objects']} objects, {row['predictions']} predictions"
            )
    return scores


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if args.results is not None:
        of_images = "videos" not in json.loads(args.annotations.read_text())
        score(args.annotations, args.results, of_images, args.worst)
        return

    accelerator = Accelerator(cpu=args.cpu)
    logger = get_logger("vita_hf.evaluate", log_level="INFO")
    split = read_split(args.annotations, args.images)
    top_k = args.top_k or (100 if split.of_images else 10)
    logger.info(
        "%d %s, %d categories, top %d, %d processes on %s",
        len(split.clips),
        "images" if split.of_images else "videos",
        len(split.categories),
        top_k,
        accelerator.num_processes,
        accelerator.device,
    )
    processor = AutoVideoProcessor.from_pretrained(args.model)
    model = AutoModelForUniversalSegmentation.from_pretrained(args.model, dtype=getattr(torch, args.dtype))
    check_split(split, model.config.id2label)
    run = describe_run(args.model, split, top_k=top_k, dtype=args.dtype)
    with accelerator.main_process_first():
        store = ResultStore(args.output, run)
    model.eval().to(accelerator.device)
    segment_split(model, processor, split, store, top_k, accelerator.process_index, accelerator.num_processes)
    accelerator.wait_for_everyone()

    if accelerator.is_main_process:
        results = write_results(store.collect(split.clips), args.output, zipped=not split.of_images)
        logger.info("written: %s", results)
        if split.annotated:
            scores = score(args.annotations, results, split.of_images, args.worst)
            write_atomically(args.output / "scores.json", json.dumps(scores, indent=2).encode())
        else:
            print(
                f"{args.annotations} has no annotations, so there is nothing to score against. The official "
                "YouTube-VIS and OVIS validation and test sets have none: upload "
                f"{args.output / 'submission.zip'} to their evaluation servers."
            )
    accelerator.end_training()


if __name__ == "__main__":
    main()
