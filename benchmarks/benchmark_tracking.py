"""AP of VITA against a tracker that links the same model's per-frame detections, on one annotated split.

The baseline sees what the frame detector says of each frame alone: every query's best class, its score (class
probability times mask score, as for VITA's own tracks) and its mask. Detections of neighbouring frames are linked where
they have the same class and their masks' centres are nearest, by Hungarian matching within a distance limit; a track
survives a gap of a few frames. A track's score is the mean of its detections' scores; a second baseline also counts the
frames that the track is not seen in, as 0. For each, all combinations of a few score thresholds, distance limits and
gaps are tried, and the best one *on this very split* is what VITA is compared with, which favours the baselines.

    python benchmarks/benchmark_tracking.py --model DIR --annotations split.json --images split/JPEGImages
"""

import argparse
import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm
from transformers import AutoModelForUniversalSegmentation, AutoVideoProcessor

from vita_hf import VitaForVideoInstanceSegmentation, VitaVideoProcessor
from vita_hf.evaluation.splits import Clip, Split, category_ids, read_split, segment
from vita_hf.files import write_atomically
from vita_hf.inference.offline import VideoStream
from vita_hf.scoring import VisEvaluator
from vita_hf.tracks.building import VideoInstancesBuilder
from vita_hf.tracks.instances import VideoInstances, encode_masks

THRESHOLDS = (0.05, 0.1, 0.3, 0.5)
LIMITS = (0.05, 0.1, 0.2)
GAPS = (0, 1, 3)
BASELINES = {False: "linked detections", True: "linked detections, unseen frames count as 0"}
NUMBERS = ("AP", "AP50", "AP75", "AR1", "AR10")
Track = list[tuple[int, int]]  # (frame, number of the detection in it), frames ascending


@dataclass
class Detections:
    """What was found in one frame: `n` labels, scores, mask centres (y, x) in image diagonals, and run lengths."""

    labels: np.ndarray
    scores: np.ndarray
    centres: np.ndarray
    masks: list[dict]

    @classmethod
    def of_frame(cls, found: VideoInstances) -> "Detections":
        """From a video of one frame, without empty masks."""
        masks = found.masks[:, 0]
        kept = masks.flatten(1).any(1)
        masks = masks[kept]
        centres = [mask.nonzero().double().mean(0).numpy() for mask in masks]
        centres = np.array(centres).reshape(-1, 2) / np.hypot(*found.size)
        return cls(found.labels[kept].numpy(), found.scores[kept].numpy(), centres, encode_masks(masks))

    def above(self, threshold: float) -> "Detections":
        kept = np.flatnonzero(self.scores >= threshold)
        return Detections(self.labels[kept], self.scores[kept], self.centres[kept], [self.masks[i] for i in kept])


def link(frames: list[Detections], limit: float, gap: int) -> list[Track]:
    """
    Join detections into tracks, frame after frame.

    Args:
        limit: how far, in image diagonals, a mask's centre may be from the track's last one.
        gap: for how many frames a track may be unseen.
    """
    tracks: list[Track] = []
    for number, found in enumerate(frames):
        alive = [track for track in tracks if number - track[-1][0] <= gap + 1]
        ends = [(frames[track[-1][0]], track[-1][1]) for track in alive]
        centres = np.array([end.centres[i] for end, i in ends]).reshape(-1, 1, 2)
        labels = np.array([end.labels[i] for end, i in ends], dtype=np.int64).reshape(-1, 1)
        distances = np.linalg.norm(centres - found.centres, axis=-1)
        allowed = (labels == found.labels) & (distances <= limit)
        # A pair that is not allowed costs more than any number of allowed ones, and is dropped afterwards.
        rows, columns = linear_sum_assignment(np.where(allowed, distances, 1e3))
        linked = {column: row for row, column in zip(rows, columns) if allowed[row, column]}
        for detection in range(len(found.labels)):
            if detection in linked:
                alive[linked[detection]].append((number, detection))
            else:
                tracks.append([(number, detection)])
    return tracks


def predictions(
    frames: list[Detections], tracks: list[Track], video_id: int, ids: dict[int, int], over_all: bool, top_k: int
) -> list[dict[str, Any]]:
    """
    The best `top_k` tracks in YouTube-VIS's form.

    Args:
        over_all: whether a track's score is the mean over all of the video's frames (0 where it is not seen), or over
            those in which it is seen.
    """
    results = []
    for track in tracks:
        masks: list[dict | None] = [None] * len(frames)
        for number, detection in track:
            masks[number] = frames[number].masks[detection]
        total = sum(float(frames[number].scores[detection]) for number, detection in track)
        first, detection = track[0]
        results.append(
            {
                "video_id": video_id,
                "category_id": ids[int(frames[first].labels[detection])],
                "score": total / (len(frames) if over_all else len(track)),
                "segmentations": masks,
            }
        )
    return sorted(results, key=lambda result: -result["score"])[:top_k]


@torch.no_grad()
def detect(model: VitaForVideoInstanceSegmentation, processor: VitaVideoProcessor, clip: Clip) -> Iterator[Detections]:
    """Each frame's detections by the frame detector's last prediction, down to the lowest threshold."""
    embed = model.model.transformer_module.decoder.mask_predictor.mask_embedder
    for chunk in VideoStream(processor, clip.frames, name=f"video {clip.id}").chunks(model.config.detector_chunk_size):
        detected = model.model.detect(chunk.pixel_values.to(model.device, model.dtype))
        states = detected.frame_states[-1]
        for class_logits, embeddings, features in zip(
            model.class_predictor(states), embed(states), detected.mask_features
        ):
            frame = VideoInstancesBuilder(
                class_logits,
                embeddings,
                frame_size=chunk.frame_size,
                target_size=chunk.original_size,
                top_k=len(class_logits),
                threshold=min(THRESHOLDS),
                one_label_per_query=True,
            )
            frame.add_frames(features[None])
            yield Detections.of_frame(frame.build())


def score(annotations: Path, results: Iterable[list[dict]]) -> dict[str, float]:
    evaluator = VisEvaluator(annotations)
    for of_video in results:
        evaluator.add(of_video)
    scores = evaluator.compute()
    return {name: scores[name] for name in NUMBERS}


def best_baseline(
    split: Split, videos: list[list[Detections]], ids: dict[int, int], top_k: int
) -> dict[str, dict[str, Any]]:
    """Of each baseline, `scores` and `settings` of the best combination of settings by AP."""
    best: dict[str, dict[str, Any]] = {}
    combinations = list(itertools.product(THRESHOLDS, LIMITS, GAPS))
    for threshold, limit, gap in tqdm(combinations, desc="linking", leave=False):
        kept = [[frame.above(threshold) for frame in frames] for frames in videos]
        tracks = [link(frames, limit, gap) for frames in kept]
        for over_all, name in BASELINES.items():
            results = (
                predictions(frames, linked, clip.id, ids, over_all, top_k)
                for clip, frames, linked in zip(split.clips, kept, tracks)
            )
            scores = score(split.path, results)
            if name not in best or scores["AP"] > best[name]["scores"]["AP"]:
                settings = {"threshold": threshold, "limit": limit, "gap": gap}
                best[name] = {"scores": scores, "settings": settings}
    return best


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory or Hub id of a model with its processor")
    parser.add_argument("--annotations", type=Path, required=True, help="json in YouTube-VIS form")
    parser.add_argument("--images", type=Path, required=True, help="folder that the file's frame names are relative to")
    parser.add_argument("--top-k", type=int, default=10, help="tracks of a video that count, for both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args(argv)
    # Settings that find nothing are part of the search, and nothing to warn of.
    logging.getLogger("vita_hf.scoring").setLevel(logging.ERROR)
    split = read_split(args.annotations, args.images)
    if split.of_images or not split.annotated:
        parser.error(f"--annotations: expected annotated videos in {args.annotations}")
    processor = AutoVideoProcessor.from_pretrained(args.model)
    model = AutoModelForUniversalSegmentation.from_pretrained(args.model).eval().to(args.device)
    ids = category_ids(model.config.id2label, split.categories)

    own, videos = [], []
    for clip in tqdm(split.clips, desc="segmenting", unit="clip"):
        own.append(segment(model, processor, clip, split, args.top_k))
        videos.append(list(detect(model, processor, clip)))
    vita = score(split.path, own)
    baselines = best_baseline(split, videos, ids, args.top_k)

    print("| | " + " | ".join(NUMBERS) + " |\n|---|" + "---:|" * len(NUMBERS))
    rows = [("VITA", vita)]
    for title, baseline in baselines.items():
        rows.append((title, baseline["scores"]))
        rows.append(("VITA's lead", {name: vita[name] - baseline["scores"][name] for name in NUMBERS}))
    for title, row in rows:
        print(f"| {title} | " + " | ".join(f"{row[name]:.4f}" for name in NUMBERS) + " |")
    for title, baseline in baselines.items():
        print(f"\n{title}: " + ", ".join(f"{name} {value}" for name, value in baseline["settings"].items()))
    report = {"vita": vita, "baselines": baselines, "videos": len(split.clips)}
    if args.json:
        write_atomically(args.json, (json.dumps(report, indent=2) + "\n").encode())
    return report


if __name__ == "__main__":
    main()
