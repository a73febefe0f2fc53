"""The metric written down once more, straight from its definition, on dense masks and with loops; and random cases."""

import numpy as np
from pycocotools import mask as mask_utils

from helpers.annotation_files import compressed, uncompressed

AREAS = {"": (0, 1e10), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10)}


def to_dense(segmentation, height, width):
    """One frame's mask, `(height, width)` bool, from any form it may have in a file."""
    if not segmentation:
        return np.zeros((height, width), bool)
    if isinstance(segmentation, list):
        rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = mask_utils.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return mask_utils.decode(rle).astype(bool)


def mean_positive(values):
    values = [value for value in values if value]
    return sum(values) / len(values) if values else 0


def plain_metric(content, predictions):
    """All numbers of the metric, and IoU tables by (video, category)."""
    sizes = {video["id"]: (video["height"], video["width"]) for video in content["videos"]}

    def track(entry):
        return np.stack([to_dense(s, *sizes[entry["video_id"]]) for s in entry["segmentations"]])

    objects, detections = {}, {}
    for entry in content["annotations"]:
        masks = track(entry)
        areas = entry.get("areas") or [int(mask.sum()) for mask in masks]
        key = entry["video_id"], entry["category_id"]
        levels = [w for w in entry.get("occlusion") or [] if w]
        scores = sorted({"no": 0, "slight": 0.25, "severe": 0.75}[w.split("_")[0]] for w in levels)[::-1]
        half = scores[: (len(scores) + 1) // 2]
        occlusion = sum(half) / len(half) if half else None
        objects.setdefault(key, []).append((masks, mean_positive(areas), bool(entry.get("iscrowd")), occlusion))
    for entry in predictions:
        masks = track(entry)
        key = entry["video_id"], entry["category_id"]
        average = mean_positive([int(mask.sum()) for mask in masks])
        detections.setdefault(key, []).append((masks, average, entry["score"]))

    tables = {}
    for key, found in detections.items():
        found.sort(key=lambda item: -item[2])
        del found[100:]
        tables[key] = np.zeros((len(found), len(objects.get(key, []))))
        for row, (a, _, _) in enumerate(found):
            for column, (b, _, _, _) in enumerate(objects.get(key, [])):
                union = int((a | b).sum())
                tables[key][row, column] = int((a & b).sum()) / union if union else 0

    def evaluate(category, threshold, limit, area_range, occlusion_range=None):
        """(precision averaged over recall points, recall), or None without any object."""
        total, entries = 0, []
        for video in sorted(sizes):
            key = video, category
            here = objects.get(key, [])
            ignored = []
            for _, area, crowd, occlusion in here:
                outside = not area_range[0] <= area <= area_range[1]
                if occlusion_range:
                    outside |= occlusion is None or not occlusion_range[0] <= occlusion <= occlusion_range[1]
                ignored.append(crowd or outside)
            total += ignored.count(False)
            free = [True] * len(here)
            for row, (_, average, score) in enumerate(detections.get(key, [])[:limit]):
                choice = None
                for wanted in (False, True):
                    for column in range(len(here)):
                        iou = tables[key][row, column]
                        if ignored[column] == wanted and free[column] and iou >= min(threshold, 1 - 1e-10):
                            if choice is None or iou >= tables[key][row, choice]:
                                choice = column
                    if choice is not None:
                        break
                if choice is None:
                    if area_range[0] <= average <= area_range[1]:
                        entries.append((score, False))
                    else:
                        entries.append((score, None))
                    continue
                free[choice] = here[choice][2]
                entries.append((score, None if ignored[choice] else True))
        if not total:
            return None
        entries.sort(key=lambda entry: -entry[0])
        hits, misses, curve = 0, 0, []
        for _, outcome in entries:
            hits += outcome is True
            misses += outcome is False
            curve.append((hits / total, hits / (hits + misses + np.spacing(1))))
        points = []
        for point in np.linspace(0, 1, 101):
            points.append(max((precision for recall, precision in curve if recall >= point), default=0))
        return sum(points) / 101, hits / total

    categories = [category["id"] for category in content["categories"]]
    thresholds = np.linspace(0.5, 0.95, 10)

    def mean(which, steps, limit, *ranges, only=None):
        values = [evaluate(c, t, limit, *ranges) for c in categories if only in (None, c) for t in steps]
        values = [value[which] for value in values if value is not None]
        return sum(values) / len(values) if values else -1

    result = {"AP50": mean(0, thresholds[:1], 100, AREAS[""]), "AP75": mean(0, thresholds[5:6], 100, AREAS[""])}
    for name, area_range in AREAS.items():
        result["AP" + name] = mean(0, thresholds, 100, area_range)
        result["AR" + (name or "100")] = mean(1, thresholds, 100, area_range)
    for limit in (1, 10):
        result[f"AR{limit}"] = mean(1, thresholds, limit, AREAS[""])
    if any(level is not None for found in objects.values() for *_, level in found):
        for name, low, high in (("slight", 0, 0.25), ("moderate", 0.25, 0.5), ("heavy", 0.5, 1)):
            result[f"AP_{name}"] = mean(0, thresholds, 100, AREAS[""], (low, high))
    names = {category["id"]: category["name"] for category in content["categories"]}
    result["per_category"] = {names[c]: mean(0, thresholds, 100, AREAS[""], only=c) for c in categories}
    return result, tables


def random_mask(rng, height, width):
    """Rectangles, noise, everything, nothing, stripes: what run lengths have trouble with."""
    kind = rng.integers(7)
    mask = np.zeros((height, width), bool)
    if kind <= 2:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = True
    elif kind == 3:
        mask = rng.random((height, width)) < rng.random()
    elif kind == 4:
        mask[:] = True
    elif kind == 5:
        mask[rng.integers(height) :: rng.integers(2, 4)] = True
    return mask


def random_case(seed):
    """An annotation file's content and predictions, small and full of special cases."""
    rng = np.random.default_rng(seed)
    # Sizes around the bounds of the area ranges need frames of more than 256².
    big = rng.random() < 0.1
    has_occlusion = rng.random() < 0.3
    videos, annotations, predictions = [], [], []
    categories = [{"id": int(i), "name": f"c{i}"} for i in rng.permutation(9)[: rng.integers(1, 5)] + 1]
    for key in rng.permutation(40)[: rng.integers(1, 6)] + 1:
        height, width = (260, 270) if big else map(int, rng.integers(3, 25, 2))
        videos.append({"id": int(key), "height": height, "width": width, "length": int(rng.integers(1, 5))})
    for video in videos:
        height, width, length = video["height"], video["width"], video["length"]
        tracks = []
        for _ in range(rng.integers(0, 5)):
            if big and rng.random() < 0.7:
                side = int(rng.choice([128, 256]))
                masks = np.zeros((length, height, width), bool)
                masks[:, :side, : side + int(rng.integers(-1, 2) * (rng.random() < 0.3))] = True
            else:
                masks = np.stack([random_mask(rng, height, width) for _ in range(length)])
            masks[rng.random(length) < 0.2] = False
            tracks.append(masks)
            entry = {"id": len(annotations) + 1, "video_id": video["id"]}
            entry["category_id"] = int(rng.choice([c["id"] for c in categories]))
            forms = []
            for mask in masks:
                if not mask.any() and rng.random() < 0.7:
                    forms.append(None)
                elif rng.random() < 0.2:
                    x, y = rng.uniform(0, width, 4).round(2), rng.uniform(0, height, 4).round(2)
                    polygons = [np.stack([x, y], 1).reshape(-1).tolist()]
                    if rng.random() < 0.3:
                        polygons.append([0.0, 0.0, width / 2, 0.0, width / 2, height / 2])
                    forms.append(polygons)
                else:
                    forms.append(compressed(mask) if rng.random() < 0.5 else uncompressed(mask))
            entry["segmentations"] = forms
            if rng.random() < 0.7:
                areas = [int(to_dense(form, height, width).sum()) if form else None for form in forms]
                entry["areas"] = [128**2 if a and rng.random() < 0.05 else a for a in areas]
            if rng.random() < 0.6:
                entry["iscrowd"] = int(rng.random() < 0.3)
            if has_occlusion and rng.random() < 0.9:
                words = ["no_occlusion", "slight_occlusion", "severe_occlusion"]
                entry["occlusion"] = [None if form is None else str(rng.choice(words)) for form in forms]
            annotations.append(entry)
        for _ in range(rng.integers(0, 12)):
            if tracks and rng.random() < 0.7:
                masks = tracks[rng.integers(len(tracks))].copy()
                if rng.random() < 0.8:
                    masks ^= rng.random(masks.shape) < rng.choice([0.02, 0.2])
            else:
                masks = np.stack([random_mask(rng, height, width) for _ in range(length)])
            masks[rng.random(length) < 0.1] = False
            forms = [compressed(mask) if mask.any() or rng.random() < 0.5 else None for mask in masks]
            predictions.append(
                {
                    "video_id": video["id"],
                    "category_id": int(rng.choice([c["id"] for c in categories])),
                    "score": float(rng.choice([0.1, 0.5, 0.9, rng.random()])),
                    "segmentations": forms,
                }
            )
    special = rng.random()
    if special < 0.04:
        predictions = []
    elif special < 0.08:
        annotations = []
    content = {"videos": videos, "categories": categories, "annotations": annotations}
    return content, [predictions[i] for i in rng.permutation(len(predictions))]
