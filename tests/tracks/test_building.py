import pytest
import torch

from vita_hf.tracks.building import VideoInstancesBuilder, choose_predictions


def test_builder_needs_frames():
    builder = VideoInstancesBuilder(torch.randn(6, 5), torch.randn(6, 8))
    with pytest.raises(ValueError, match="no frames were processed"):
        builder.build()


def test_choosing_predictions():
    # Probabilities of three queries: (0.6, 0.3), (0.1, 0.2), (0.05, 0.5); the rest is "no object".
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.05, 0.5, 0.45]])
    scores, labels, queries = choose_predictions(probabilities.log(), 3, 0.0, one_label_per_query=False)
    assert (labels.tolist(), queries.tolist()) == ([0, 1, 1], [0, 2, 0])
    torch.testing.assert_close(scores, torch.tensor([0.6, 0.5, 0.3]))
    scores, labels, queries = choose_predictions(probabilities.log(), 3, 0.0, one_label_per_query=True)
    assert (labels.tolist(), queries.tolist()) == ([0, 1, 1], [0, 2, 1])
    scores, labels, queries = choose_predictions(probabilities.log(), 3, 0.4, one_label_per_query=True)
    assert (labels.tolist(), queries.tolist()) == ([0, 1], [0, 2])


def test_choosing_predictions_of_some_classes():
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.05, 0.5, 0.45]])
    _, labels, queries = choose_predictions(probabilities.log(), 2, 0.0, one_label_per_query=False, classes=[1])
    assert (labels.tolist(), queries.tolist()) == ([1, 1], [2, 0])
    # A track's class is its best one, whatever is asked for: the first query is no track of class 1.
    _, labels, queries = choose_predictions(probabilities.log(), 3, 0.0, one_label_per_query=True, classes=[1])
    assert (labels.tolist(), queries.tolist()) == ([1, 1], [2, 1])
    assert len(choose_predictions(probabilities.log(), 3, 0.0, one_label_per_query=True, classes=[])[0]) == 0


@pytest.mark.parametrize("what", ["class logits", "mask embeddings", "mask logits"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_are_refused(what, number):
    class_logits, embeddings, features = torch.randn(6, 5), torch.randn(6, 8), torch.randn(3, 8, 4, 6)
    spoiled = {"class logits": class_logits, "mask embeddings": embeddings, "mask logits": features}[what]
    spoiled.flatten()[3] = number
    with pytest.raises(ValueError, match=f"clip.mp4: the {what} are not all finite"):
        VideoInstancesBuilder(class_logits, embeddings, name="clip.mp4").add_frames(features)
