"""The results of a run, kept clip by clip."""

import pytest

from vita_hf.evaluation.results import ResultStore


def test_results_of_other_inputs_are_refused(tmp_path):
    ResultStore(tmp_path, {"model": "a", "top_k": 10})
    ResultStore(tmp_path, {"model": "a", "top_k": 10})
    with pytest.raises(FileExistsError, match=r"holds results of another run \(model differ\)"):
        ResultStore(tmp_path, {"model": "b", "top_k": 10})
