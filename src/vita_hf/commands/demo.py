"""`vita-hf demo`: segment, draw and score a synthetic video that the shipped model has never seen."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..data.synthetic import SyntheticVideo, annotate, annotation_file_content
from ..files import UNFINISHED, check_writable, replace_files, write_atomically
from ..inference.loading import SHIPPED_MODEL, load_model
from ..inference.offline import segment_video
from ..inference.options import SegmentationOptions
from ..scoring import VisEvaluator
from ..text import counted
from ..video.writer import video_writer

_NEXT_STEPS = """
Next:
  vita-hf predict clip.mp4 --model MODEL        segment your own video; the shipped model only knows these shapes
  vita-hf convert vita_r50_ytvis2019.pth --recipe ytvis2019-r50 --output vita-r50-ytvis2019
                                                make such a MODEL of the released weights (docs/converting.md)
  vita-hf train --help                          train a MODEL for your own classes (docs/training.md)
"""

FILES = ("video.mp4", "truth.json", "overlay.mp4", "contact_sheet.png", "results.json")


def run(args: argparse.Namespace) -> None:
    """Write the directory, and print the tracks and their scores."""
    output = args.output.resolve()
    is_demo = (output / UNFINISHED).exists() or all((output / name).is_file() for name in FILES)
    if output.exists() and not (args.overwrite and is_demo):
        raise FileExistsError(f"{output} exists: choose another --output, or --overwrite an earlier demo")
    check_writable(output)
    model, processor = load_model(SHIPPED_MODEL)
    with replace_files(output, last=FILES[-1]) as folder:
        truth = write_video(SyntheticVideo(args.seed, 0, length=args.length), folder)
        all_tracks = segment_video(model, processor, folder / "video.mp4", SegmentationOptions(threshold=0.0))
        tracks = all_tracks.filter(min_score=SegmentationOptions.threshold)
        tracks.to_json(folder / "results.json")
        sheet = folder / "contact_sheet.png"
        tracks.render(folder / "video.mp4", folder / "overlay.mp4", scale=4, contact_sheet=sheet)

    found, frames = counted(len(tracks), "track"), counted(tracks.num_frames, "frame")
    print(f"{found} with a score of at least {SegmentationOptions.threshold}, {frames}:")
    for track in tracks.summary():
        print("  #{track_id} {label:9} {score:.2f}  frames {first_frame} to {last_frame}".format(**track))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    print(f"Ground truth: {', '.join(sorted(names[a['category_id']] for a in truth['annotations']))}")
    evaluator = VisEvaluator(truth)
    evaluator.add(all_tracks.to_ytvis(1))
    scores = evaluator.compute()
    print(f"AP {scores['AP']:.3f}, AP50 {scores['AP50']:.3f}, AP75 {scores['AP75']:.3f}")
    print(f"Written: {', '.join(FILES)} in {output}")
    print(_NEXT_STEPS.rstrip())


def write_video(video: SyntheticVideo, folder: Path) -> dict[str, Any]:
    """Write `video.mp4` and `truth.json`, and return the content of `truth.json`."""
    images, masks = zip(*video)
    with video_writer(folder / "video.mp4", fps=10) as write:
        for time, image in enumerate(images):
            write(image, time)
    names = [f"{time:05d}" for time in range(video.length)]
    truth = annotation_file_content([annotate(video, 1, names, masks)], f"vita-hf demo, seed {video.seed}")
    write_atomically(folder / "truth.json", json.dumps(truth).encode())
    return truth
