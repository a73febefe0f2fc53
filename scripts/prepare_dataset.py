"""Check a dataset, or turn it into Parquet shards with embedded images for the Hub and for streaming.

After an interruption, the same command continues with the first missing shard.
"""

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path

from huggingface_hub import HfApi

from vita_hf.cards.dataset import write_card
from vita_hf.commands.errors import describe_error
from vita_hf.data.annotations import AnnotationError
from vita_hf.data.checking import check_annotations
from vita_hf.data.datasets import read_coco, read_ytvis
from vita_hf.data.layout import find_split
from vita_hf.data.parquet import write_parquet
from vita_hf.files import check_writable
from vita_hf.hub import create_repository, hub_errors
from vita_hf.text import counted

EXAMPLE = """examples:
  python scripts/prepare_dataset.py --dataset ytvis2019 --root data --split train --output parquet/ytvis2019
  python scripts/prepare_dataset.py --dataset coco --root data --target ytvis2019 --output parquet/coco-for-ytvis2019
  python scripts/prepare_dataset.py --annotations my.json --images frames/ --check
  python scripts/prepare_dataset.py --annotations my.json --images frames/ --output parquet/mine --push-to-hub me/mine

--check lists every problem. The exit status is 1 if any of them would stop training.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", choices=["ytvis2019", "ytvis2021", "ovis", "coco"], help="one of these, in --root")
    source.add_argument("--annotations", type=Path, help="your own annotation file")
    add = parser.add_argument
    add("--root", type=Path, help="folder that the datasets' archives were unpacked to")
    add("--split", default="train", help="train, valid or test; for COCO train or val (default: train)")
    add("--images", type=Path, help="folder that the file names in your own annotations are relative to")
    add("--follow-links", action="store_true", help="accept frames that symbolic links lead out of the images' folder")
    add("--format", choices=["ytvis", "coco"], help="format of your own annotations (default: ytvis)")
    add("--target", choices=["ytvis2019", "ytvis2021", "ovis"], help="map COCO to the classes of this dataset")
    add("--output", type=Path, help="folder for the shards")
    add("--shard-size", type=int, default=500, metavar="MB", help="size of the images in a shard (default: 500)")
    add("--skip-broken", action="store_true", help="leave out videos with errors in the annotations")
    add("--check", action="store_true", help="list the problems of the dataset and write nothing")
    add("--push-to-hub", metavar="REPO", help="upload the shards to this dataset repository, for example me/mine")
    add("--private", action="store_true", help="make a new repository private")
    args = parser.parse_args(argv)
    if args.dataset and (args.root is None or args.images or args.format):
        parser.error("--dataset: expected --root, and neither --images nor --format")
    if args.annotations and (args.images is None or args.root):
        parser.error("--annotations: expected --images, and no --root")
    if args.target and args.dataset != "coco":
        parser.error("--target: expected --dataset coco")
    if args.output is None and not args.check:
        parser.error("expected --output or --check")
    if args.check and (args.target or args.push_to_hub):
        parser.error("--check: expected neither --target nor --push-to-hub")
    if args.private and not args.push_to_hub:
        parser.error("--private: expected --push-to-hub")
    if args.shard_size < 1:
        parser.error(f"--shard-size: expected at least 1 MB, got {args.shard_size}")
    return args


def check(annotations: Path, images: Path, form: str, dataset: str | None, follow_links: bool) -> int:
    """Print all problems and return the exit status."""
    problems = check_annotations(annotations, images, form=form, dataset=dataset, follow_links=follow_links)
    for problem in problems:
        print(f"{problem.severity}: {problem}")
    severities = Counter(problem.severity for problem in problems)
    print(f"{annotations}: {counted(severities['error'], 'error')}, {counted(severities['warning'], 'warning')}")
    for kind, count in Counter(problem.kind for problem in problems).most_common():
        print(f"  {count} {kind}")
    return 1 if severities["error"] else 0


def prepare(args: argparse.Namespace) -> int:
    """Check or convert the dataset and return the exit status."""
    form = "coco" if args.dataset == "coco" else args.format or "ytvis"
    annotations, images = args.annotations, args.images
    if args.dataset:
        annotations, images = find_split(args.dataset, args.root, args.split)
    if args.check:
        return check(annotations, images, form, args.dataset, args.follow_links)
    check_writable(args.output)
    reading = {"skip_broken": args.skip_broken, "follow_links": args.follow_links}
    if form == "coco":
        target = args.target or args.dataset  # your own annotations keep their classes
        dataset = read_coco(annotations, images, target=target, **reading)
    else:
        dataset = read_ytvis(annotations, images, categories=args.dataset, **reading)
    if args.push_to_hub:
        create_repository(args.push_to_hub, "dataset", args.private or None)  # fail before the long part
    shards = write_parquet(dataset, args.output, args.split, args.shard_size * 1_000_000)
    write_card(args.output, args.push_to_hub or args.output.resolve().name, args.push_to_hub)
    videos, files = counted(len(dataset.rows), "video"), counted(len(shards), "shard")
    print(f"{videos} in {files} in {args.output}")
    if args.push_to_hub:
        files = {"folder_path": args.output, "allow_patterns": ["README.md", "data/*"], "ignore_patterns": ["data/.*"]}
        with hub_errors(args.push_to_hub):
            commit = HfApi().upload_folder(repo_id=args.push_to_hub, repo_type="dataset", **files)
        print(f"uploaded: {commit.repo_url}")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return prepare(args)
    except AnnotationError as error:
        sys.exit(f"{error}\n(--check lists every problem, --skip-broken leaves such videos out)")
    except (OSError, ValueError) as error:
        sys.exit(describe_error(error))


if __name__ == "__main__":
    sys.exit(main())
