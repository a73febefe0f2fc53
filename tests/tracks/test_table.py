import numpy as np
import torch

from helpers.tracks import instances
from vita_hf.tracks.palette import track_color


def result(**fields):
    masks = np.zeros((2, 4, 6, 8), dtype=bool)
    masks[0, 1:3, 2:4, 2:4] = True
    return instances(masks, track_ids=torch.tensor([0, 5]), **fields)


def test_table_of_a_notebook_has_colors_names_and_times():
    html = result(frame_indices=[0, 5, 10, 15], fps=5.0, id2label={0: "person", 1: "<dog>"})._repr_html_()
    first, second = html.split("<tr>")[2:]
    assert f"background: rgb{track_color(0)}" in first and ">#0<" in first
    assert "<td>person</td><td>0.90</td><td>0:01.00 – 0:02.00</td><td>2 of 4</td>" in first
    assert f"background: rgb{track_color(5)}" in second
    assert "<td>&lt;dog&gt;</td><td>0.50</td><td>–</td><td>0 of 4</td>" in second


def test_without_a_frame_rate_the_table_counts_frames():
    assert "<td>frame 5 – frame 10</td>" in result(frame_indices=[0, 5, 10, 15])._repr_html_()
    assert result()[[]]._repr_html_() == "<p>no tracks</p>"
