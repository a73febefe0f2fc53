"""`vita-hf demo`: a synthetic video that the shipped model has never seen, segmented, drawn and scored."""

import argparse
import json
import shutil
from pathlib import Path

from ..data.synthetic import SyntheticVideo, annotate, annotation_file_content
from ..files import write_atomically
from ..inference.loading import SHIPPED_MODEL, load_model
from ..pipeline_vita import VideoInstanceSegmentationPipeline
from ..scoring import VisEvaluator
from ..video.writer import video_writer

_DESCRIPTION = """Make a synthetic video, segment it with the shipped tiny model, and compare with the known truth.

Needs no network and no GPU. Written to OUTPUT, all of it or nothing:
  video.mp4          the video
  truth.json         what is in it, in YouTube-VIS's form
  overlay.mp4        masks, labels and track ids over the video
  contact_sheet.png  some frames, and a time line of which track is seen when
  results.json       the tracks (read by VideoInstances.from_json)
"""

_NEXT = """
Next:
  vita-hf predict clip.mp4 --model MODEL        segment a video of your own; the shipped model knows only these shapes
  vita-hf convert vita_r50_ytvis2019.pth --recipe ytvis2019-r50 --output vita-r50-ytvis2019
                                                the released weights as such a MODEL (docs/converting.md)
  accelerate launch scripts/train.py --help     a MODEL for your own classes (docs/training.md)
"""

THRESHOLD = 0.3
WRITTEN = ("video.mp4", "truth.json", "overlay.mp4", "contact_sheet.png", "results.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="directory to write (default: demo)")
    parser.add_argument("--seed", type=int, default=2, help="another seed gives another video")
    parser.add_argument("--length", type=int, default=40, help="frames (default: 40)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier demo")


def run(args: argparse.Namespace) -> None:
    """Write the folder and print what is in it."""
    args.output = args.output.resolve()
    if args.output.exists() and not (args.overwrite and all((args.output / name).is_file() for name in WRITTEN)):
        raise FileExistsError(f"{args.output} exists: choose another --output, or --overwrite an earlier demo")
    model, processor = load_model(SHIPPED_MODEL)
    segmenter = VideoInstanceSegmentationPipeline(model, processor, device="cpu")
    unfinished = args.output.with_name(f".{args.output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # a killed run's
    try:
        unfinished.mkdir(parents=True)
        truth = write_video(SyntheticVideo(args.seed, 0, length=args.length), unfinished)
        everything = segmenter(str(unfinished / "video.mp4"), threshold=0.0)
        result = everything.filter(min_score=THRESHOLD)
        result.to_json(unfinished / "results.json")
        result.render(unfinished / "video.mp4", unfinished / "overlay.mp4", scale=4)
        result.plot(unfinished / "video.mp4", unfinished / "contact_sheet.png")
        if args.output.exists():
            shutil.rmtree(args.output)
        unfinished.rename(args.output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

    print(f"{len(result)} tracks that score at least {THRESHOLD}, in {result.num_frames} frames:")
    for track in result.summary():
        seen = f"frames {track['first_frame']} to {track['last_frame']}"
        print(f"  #{track['track_id']} {track['label']:9} {track['score']:.2f}  {seen}")
    names = {category["id"]: category["name"] for category in truth["categories"]}
    print(f"In truth: {', '.join(sorted(names[a['category_id']] for a in truth['annotations']))}")
    evaluator = VisEvaluator(truth)
    evaluator.add(everything.to_ytvis(1))
    scores = evaluator.compute()
    print(f"AP {scores['AP']:.3f}, AP50 {scores['AP50']:.3f}, AP75 {scores['AP75']:.3f} against the truth")
    print(f"Written: {args.output}/overlay.mp4, contact_sheet.png, results.json, video.mp4, truth.json")
    print(_NEXT.rstrip())


def write_video(video: SyntheticVideo, folder: Path) -> dict:
    """Write `video.mp4` and `truth.json`; returns the truth."""
    masks = []
    with video_writer(folder / "video.mp4", fps=10) as write:
        for time, (image, of_frame) in enumerate(video):
            write(image, time)
            masks.append(of_frame)
    names = [f"{time:05d}" for time in range(video.length)]
    truth = annotation_file_content([annotate(video, 1, names, masks)], f"vita-hf demo, seed {video.seed}")
    write_atomically(folder / "truth.json", json.dumps(truth).encode())
    return truth
