"""AP of VITA and of a tracker that links the same model's per-frame detections, on one annotated dataset split.

The baseline sees only the frame detector's predictions for each frame: the best class of every query, its score (class
probability times mask score, as for VITA's own tracks) and its mask. It links detections of the same class whose mask
centers are nearest, by Hungarian matching within a distance limit. A track survives a gap of a few frames. Its score is
the mean score of its detections; a second baseline counts the frames in which the track is not seen as 0. Both try all
combinations of a few score thresholds, distance limits and gaps. VITA is compared with the combination that has the
best AP *on this very split*, which favors the baselines.

    python benchmarks/benchmark_tracking.py --model DIR --annotations split.json --images split/JPEGImages
"""

import argparse
import itertools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from vita_hf import VideoInstances, VitaForVideoInstanceSegmentation, VitaVideoProcessor
from vita_hf.commands.evaluate import markdown_table
from vita_hf.evaluation.run import segment_clip
from vita_hf.evaluation.splits import Clip, Split, match_categories, read_split
from vita_hf.files import write_atomically
from vita_hf.inference.loading import load_model
from vita_hf.ops.rle import encode_masks
from vita_hf.scoring import VisEvaluator
from vita_hf.tracks.building import VideoInstancesBuilder

THRESHOLDS = (0.05, 0.1, 0.3, 0.5)
LIMITS = (0.05, 0.1, 0.2)
GAPS = (0, 1, 3)
# Whether the frames in which a track is not seen count as 0 in its score.
BASELINES = {False: "linked detections", True: "linked detections, unseen frames count as 0"}
METRICS = ("AP", "AP50", "AP75", "AR1", "AR10")
Track = list[tuple[int, int]]  # (frame, index of the detection in it), frames ascending


@dataclass
class Detections:
    """The n detections in one frame: labels, scores, mask centers (y, x) in image diagonals, and masks as RLE."""

    labels: np.ndarray
    scores: np.ndarray
    centers: np.ndarray
    masks: list[dict]

    @classmethod
    def from_instances(cls, instances: VideoInstances) -> "Detections":
        """Take the instances of a video of one frame, without those whose mask is empty."""
        keep = instances.masks[:, 0].flatten(1).any(1)
        masks = instances.masks[keep, 0]
        centers = np.array([mask.nonzero().double().mean(0).numpy() for mask in masks]).reshape(-1, 2)
        labels, scores = instances.labels[keep].numpy(), instances.scores[keep].numpy()
        return cls(labels, scores, centers / np.hypot(*instances.size), encode_masks(masks))

    def above(self, threshold: float) -> "Detections":
        keep = np.flatnonzero(self.scores >= threshold)
        return Detections(self.labels[keep], self.scores[keep], self.centers[keep], [self.masks[i] for i in keep])


def link(frames: list[Detections], limit: float, gap: int) -> list[Track]:
    """
    Link detections into tracks, frame by frame.

    Args:
        frames: The detections of each frame.
        limit: Largest distance, in image diagonals, between the centers of a detection and of a track's last one.
        gap: The maximum number of frames in a row in which a track may be unseen.
    """
    tracks: list[Track] = []
    for frame, detections in enumerate(frames):
        alive = [track for track in tracks if frame - track[-1][0] <= gap + 1]
        ends = [(frames[track[-1][0]], track[-1][1]) for track in alive]
        centers = np.array([end.centers[i] for end, i in ends]).reshape(-1, 1, 2)
        labels = np.array([end.labels[i] for end, i in ends], dtype=np.int64).reshape(-1, 1)
        distances = np.linalg.norm(centers - detections.centers, axis=-1)
        allowed = (labels == detections.labels) & (distances <= limit)
        # A forbidden pair costs more than any number of allowed ones, and is dropped afterwards.
        rows, columns = linear_sum_assignment(np.where(allowed, distances, 1e3))
        linked = {column: row for row, column in zip(rows, columns) if allowed[row, column]}
        for detection in range(len(detections.labels)):
            if detection in linked:
                alive[linked[detection]].append((frame, detection))
            else:
                tracks.append([(frame, detection)])
    return tracks


def to_results(
    frames: list[Detections], tracks: list[Track], video_id: int, ids: dict[int, int], count_unseen: bool, top_k: int
) -> list[dict[str, Any]]:
    """
    Turn the best `top_k` tracks of a video into entries of a YouTube-VIS results file.

    A track's score is the mean over the frames in which it is seen or, with `count_unseen`, over all frames, with 0 for
    the others. `ids` maps labels to category ids.
    """
    results = []
    for track in tracks:
        masks: list[dict | None] = [None] * len(frames)
        total = 0.0
        for frame, detection in track:
            masks[frame] = frames[frame].masks[detection]
            total += float(frames[frame].scores[detection])
        first_frame, first_detection = track[0]
        category = ids[int(frames[first_frame].labels[first_detection])]
        entry = {"video_id": video_id, "category_id": category, "segmentations": masks}
        results.append({**entry, "score": total / (len(frames) if count_unseen else len(track))})
    return sorted(results, key=lambda result: -result["score"])[:top_k]


@torch.no_grad()
def detect(model: VitaForVideoInstanceSegmentation, processor: VitaVideoProcessor, clip: Clip) -> Iterator[Detections]:
    """Yield the detections of each frame, from the frame detector's last layer, down to the lowest threshold."""
    embed = model.model.transformer_module.decoder.mask_predictor.mask_embedder
    inputs = processor([clip.frames], return_tensors="pt")
    options = {"threshold": min(THRESHOLDS), "one_label_per_query": True, "top_k": model.config.num_queries}
    options |= {"frame_size": tuple(inputs["frame_sizes"][0].tolist()), "target_size": clip.size}
    for frames in inputs["pixel_values_videos"][0].split(model.config.detector_chunk_size):
        detected = model.model.detect(frames.to(model.device, model.dtype))
        queries = detected.frame_states[-1]
        for logits, embeddings, features in zip(model.class_predictor(queries), embed(queries), detected.mask_features):
            builder = VideoInstancesBuilder(logits, embeddings, **options)
            builder.add_frames(features[None])
            yield Detections.from_instances(builder.build())


def score(annotations: Path, results: list[dict[str, Any]]) -> dict[str, float]:
    evaluator = VisEvaluator(annotations)
    evaluator.add(results)
    scores = evaluator.compute()
    return {name: scores[name] for name in METRICS}


def best_baselines(
    split: Split, videos: list[list[Detections]], ids: dict[int, int], top_k: int
) -> dict[str, dict[str, Any]]:
    """Return the `scores` and `settings` of each baseline with the settings that give it the best AP."""
    best: dict[str, dict[str, Any]] = {}
    for threshold, limit, gap in tqdm([*itertools.product(THRESHOLDS, LIMITS, GAPS)], desc="linking", leave=False):
        kept = [[frame.above(threshold) for frame in frames] for frames in videos]
        linked = [(clip.id, frames, link(frames, limit, gap)) for clip, frames in zip(split.clips, kept)]
        for count_unseen, name in BASELINES.items():
            results = []
            for video_id, frames, tracks in linked:
                results += to_results(frames, tracks, video_id, ids, count_unseen, top_k)
            scores = score(split.path, results)
            if name not in best or scores["AP"] > best[name]["scores"]["AP"]:
                best[name] = {"scores": scores, "settings": {"threshold": threshold, "limit": limit, "gap": gap}}
    return best


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory or Hub id")
    parser.add_argument("--annotations", type=Path, required=True, help="json in YouTube-VIS format")
    parser.add_argument("--images", type=Path, required=True, help="folder that the frames' file names are relative to")
    parser.add_argument("--top-k", type=int, help="tracks per video that count, for all (default: the model's)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args(argv)
    # The search includes settings that find nothing; that is no reason to warn.
    logging.getLogger("vita_hf.scoring").setLevel(logging.ERROR)
    split = read_split(args.annotations, args.images)
    if split.of_images or not split.annotated:
        parser.error(f"--annotations: expected annotated videos in {args.annotations}")
    model, processor = load_model(args.model)
    model.to(args.device)
    top_k = args.top_k or model.config.evaluation_top_k

    category_ids = match_categories(model.config.id2label, split.categories)
    results, videos = [], []
    for clip in tqdm(split.clips, desc="segmenting", unit="clip"):
        results += segment_clip(model, processor, clip, split, top_k, category_ids)
        videos.append(list(detect(model, processor, clip)))
    vita = score(split.path, results)
    baselines = best_baselines(split, videos, category_ids, top_k)

    rows = [{"": "VITA", **vita}]
    for name, baseline in baselines.items():
        rows.append({"": name, **baseline["scores"]})
        rows.append({"": "VITA's lead", **{metric: vita[metric] - baseline["scores"][metric] for metric in METRICS}})
    print(markdown_table(rows))
    for name, baseline in baselines.items():
        print(f"\n{name}: " + ", ".join(f"{setting} {value}" for setting, value in baseline["settings"].items()))
    report = {"vita": vita, "baselines": baselines, "videos": len(split.clips)}
    if args.json:
        write_atomically(args.json, (json.dumps(report, indent=2) + "\n").encode())
    return report


if __name__ == "__main__":
    main()
