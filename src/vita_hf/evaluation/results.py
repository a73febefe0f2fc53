"""Results of a run over a dataset split: one file per clip while it runs, the submission at the end."""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files import RunRecord, atomic_path, write_atomically
from .splits import Clip


class ResultStore:
    """
    The results of the finished clips, one json file each in `folder/parts`.

    Args:
        folder: The output folder. All processes of a run share it.
        inputs: What the results depend on, kept in `folder/run.json`. A later run must have the same inputs.

    Raises:
        FileExistsError: if the folder holds results of other inputs.

    Example:
    ```python
    >>> import tempfile
    >>> from vita_hf.evaluation.results import ResultStore
    >>> from vita_hf.evaluation.splits import Clip

    >>> store = ResultStore(tempfile.mkdtemp(), {"model": "a", "top_k": 10})
    >>> clips = [Clip(1, ["1/0.jpg"], (96, 128)), Clip(2, ["2/0.jpg"], (96, 128))]
    >>> store.save(clips[0], [{"video_id": 1, "category_id": 3, "score": 0.9, "segmentations": [None]}])
    >>> [store.is_finished(clip) for clip in clips]
    [True, False]

    ```
    """

    def __init__(self, folder: str | os.PathLike, inputs: Mapping[str, Any]):
        self.folder = Path(folder)
        record = RunRecord(self.folder / "run.json", inputs)
        if not record.matches():
            record.write()

    def is_finished(self, clip: Clip) -> bool:
        return self._part(clip).is_file()

    def save(self, clip: Clip, results: list[dict]) -> None:
        write_atomically(self._part(clip), json.dumps(results).encode())

    def write_results(self, clips: Iterable[Clip]) -> Path:
        """Write the results of these clips, in their order, to `results.json`, and return its path."""
        results = [entry for clip in clips for entry in json.loads(self._part(clip).read_bytes())]
        path = self.folder / "results.json"
        write_atomically(path, json.dumps(results).encode())
        return path

    def _part(self, clip: Clip) -> Path:
        return self.folder / "parts" / f"{clip.id}.json"


def write_submission(results: Path) -> Path:
    """Pack a `results.json` alone into `submission.zip` beside it, as the evaluation servers want it."""
    path = results.with_name("submission.zip")
    entry = zipfile.ZipInfo(
        "results.json", (1980, 1, 1, 0, 0, 0)
    )  # a fixed date, so that equal results give equal files
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(entry, results.read_bytes(), zipfile.ZIP_DEFLATED)
    return path
