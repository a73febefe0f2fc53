"""The network against the reference's numbers, tensor by tensor."""

import numpy as np
import pytest
import torch

from vita_hf import VitaVideoProcessor

CASES = ("a", "b", "t1")


def assert_close(ours: torch.Tensor, golden, case: str, name: str, frames=None):
    """Within 20× the reference's own float32 noise, or 1e-4 of the tensor's spread, whichever is larger."""
    theirs = golden.tensors.get(f"eval_{case}.{name}")
    if theirs is None:
        assert not golden.json["eval"][case]["dense_frames"], f"eval_{case}.{name} is missing"
        return
    facts = golden.json["eval"][case]
    ours = ours if frames is None else ours[frames]
    assert ours.shape == theirs.shape, name
    tolerance = max(20 * facts["fp64_maxdiff"][name], 1e-4 * facts["std"][name])
    assert (ours - theirs).abs().max().item() <= tolerance, name


def network_input(golden, case: str) -> torch.Tensor:
    """The case's frames, normalized and padded, by formula."""
    frames = golden.tensors[f"eval_{case}.pixel_values"].double()
    mean = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64)[:, None, None]
    std = torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64)[:, None, None]
    frames = ((frames - mean) / std).float()
    height, width = frames.shape[-2:]
    return torch.nn.functional.pad(frames, (0, -width % 32, 0, -height % 32))[None]


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_every_stage_equals_the_reference(golden, model, case):
    pixels = network_input(golden, case)
    dense = golden.json["eval"][case]["dense_frames"]
    features, quarter, mask_features, maps = model.model.pixel_level_module(pixels[0])
    for stage, feature in enumerate(features):
        assert_close(feature, golden, case, f"backbone.res{stage + 2}", dense)
    assert_close(quarter, golden, case, "pixel_decoder.clip_mask_features", dense)
    assert_close(mask_features, golden, case, "pixel_decoder.mask_features", dense)
    for level, feature in enumerate(maps):
        assert_close(feature, golden, case, f"pixel_decoder.multi_scale_{level}", dense)

    out = model(pixels, output_auxiliary_logits=True)
    *earlier, last = out.auxiliary_logits
    assert len(earlier) == model.config.decoder_layers - 1
    for name, predictions in [*((f"aux_{i}.", p) for i, p in enumerate(earlier)), ("", last)]:
        logits = predictions["class_queries_logits"][0]
        theirs = golden.tensors.get(f"eval_{case}.frame_decoder.{name}pred_logits")
        if theirs is not None:
            assert_close(
                logits, golden, case, f"frame_decoder.{name}pred_logits", dense if len(theirs) < len(logits) else None
            )
        assert_close(predictions["masks_queries_logits"][0], golden, case, f"frame_decoder.{name}pred_masks", dense)
    assert_close(out.frame_queries[0], golden, case, "frame_decoder.frame_queries")

    if f"eval_{case}.vita.mask_features" in golden.tensors:
        theirs = golden.tensors[f"eval_{case}.vita.mask_features"]
        few = dense if len(theirs) < out.video_mask_features.shape[1] else None
        assert_close(out.video_mask_features[0], golden, case, "vita.mask_features", few)
    assert_close(out.class_queries_logits[None], golden, case, "vita.pred_logits")
    assert_close(out.mask_embeddings[None], golden, case, "vita.pred_mask_embed")
    base = model.model(pixels)
    assert_close(model.frame_similarity_embedder(base.encoded_frame_queries), golden, case, "vita.pred_fq_embed")
    assert_close(model.video_similarity_embedder(base.video_states[-1]), golden, case, "vita.pred_cq_embed")
    expected = torch.einsum("bqc,btchw->bqthw", out.mask_embeddings, out.video_mask_features)
    torch.testing.assert_close(out.masks_queries_logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_from_pixels_to_scores_labels_and_masks(golden, model, case):
    facts = golden.json["eval"][case]
    processor = VitaVideoProcessor(do_resize=False)
    inputs = processor(golden.tensors[f"eval_{case}.pixel_values"], return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values_videos"], network_input(golden, case), rtol=0, atol=1e-5)
    (result,) = processor.post_process_video_instance_segmentation(
        model(**inputs), frame_sizes=inputs["frame_sizes"], target_sizes=[tuple(facts["out_hw"])], top_k=10
    )
    # top-k is unordered: compare by (query, label), which occurs once
    queries, labels = facts["topk_query_index"], golden.tensors[f"eval_{case}.out.pred_labels"].tolist()
    order = {pair: i for i, pair in enumerate(zip(result.query_indices.tolist(), result.labels.tolist()))}
    assert set(order) == set(zip(queries, labels))
    ours = [order[pair] for pair in zip(queries, labels)]
    torch.testing.assert_close(result.scores[ours], golden.tensors[f"eval_{case}.out.pred_scores"], rtol=0, atol=1e-4)

    def bits(name):
        packed = golden.tensors[f"eval_{case}.out.{name}"].numpy()
        shape = facts["masks_shape"]
        return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)

    decided = ~bits("uncertain_1e-3_bits")
    masks = result.masks[ours].numpy()
    assert masks.shape == decided.shape
    assert decided.mean() > 0.99
    assert (masks == bits("pred_masks_bits"))[decided].all()


@torch.no_grad()
def test_video_part_at_every_length(golden, model):
    for length in golden.json["vita_lengths"]:
        prefix = f"vita_T{length}."
        out = model.model.associate(golden.tensors[prefix + "frame_queries"][:, None])
        states = out.video_states[-1]
        for name, ours in {
            "pred_logits": model.video_class_predictor(states),
            "pred_mask_embed": model.video_mask_embedder(states),
            "pred_fq_embed": model.frame_similarity_embedder(out.encoded_frame_queries),
            "pred_cq_embed": model.video_similarity_embedder(states),
        }.items():
            theirs = golden.tensors[prefix + name]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.std().item(), msg=f"{prefix}{name}")


def test_video_part_in_training(golden, model):
    facts = golden.json["vita_train"]
    queries = golden.tensors["vita_train.frame_queries"].unflatten(1, (facts["B"], facts["num_frames"]))
    model.train()
    try:
        with torch.no_grad():
            out = model.model.associate(queries)
    finally:
        model.eval()
    *earlier, last = out.video_states
    for prefix, states in [*((f"aux_{i}.", s) for i, s in enumerate(earlier)), ("", last)]:
        for name, head in {
            "pred_logits": model.video_class_predictor,
            "pred_mask_embed": model.video_mask_embedder,
            "pred_cq_embed": model.video_similarity_embedder,
        }.items():
            theirs = golden.tensors[f"vita_train.{prefix}{name}"]
            torch.testing.assert_close(head(states), theirs, rtol=0, atol=1e-4 * theirs.std().item())
    theirs = golden.tensors["vita_train.pred_fq_embed"]
    ours = model.frame_similarity_embedder(out.encoded_frame_queries)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.std().item())
