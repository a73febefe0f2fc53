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
