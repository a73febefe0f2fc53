"""The video instance segmentation metric for `evaluate.load`: an adapter over `vita_hf.scoring.VisEvaluator`."""

import datasets

import evaluate
from vita_hf.scoring import VisEvaluator

_DESCRIPTION = """\
Average precision and recall of video instance segmentation as on YouTube-VIS and OVIS: COCO's rules with the IoU of
whole tracks, the pixels that two tracks share over all frames divided by those that either has.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: List of `{"video_id", "category_id", "score", "segmentations"}`, with an RLE or None for each of the
        video's frames; or the path of a json file with such a list.
    references: The path of an annotation file in YouTube-VIS or OVIS form, its content, or the list of its annotations.
        A file or its content needs to be given only once.

Returns:
    A dict of fractions in [0, 1], or −1 if there is no object to find: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100,
    ARs, ARm, ARl; with OVIS's occlusion levels AP_slight, AP_moderate, AP_heavy; and `per_category`, the AP by category
    name.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class VisAp(evaluate.Metric):
    """Passes everything to `VisEvaluator`, because `evaluate`'s own buffer cannot hold tracks with missing frames."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="Yang et al., Video Instance Segmentation, ICCV 2019; "
            "Qi et al., Occluded Video Instance Segmentation: A Benchmark, IJCV 2022",
            inputs_description=_KWARGS_DESCRIPTION,
            # `evaluate.combine` reads the names; nothing is encoded with the types.
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://youtube-vos.org/dataset/vis", "https://songbai.site/ovis"],
        )

    def _download_and_prepare(self, dl_manager):
        if self.num_process > 1:
            raise ValueError(
                "num_process > 1 is not supported: in each process add its videos, gather the `state()` of all "
                "processes and `merge()` them before `compute`"
            )
        self._reset()

    def _reset(self):
        self._evaluator = None
        self._references = None
        self._waiting = []

    def add(self, *, prediction=None, reference=None, **kwargs):
        """
        Add one prediction, or a list of them, and one annotation, or anything that `references` may be.

        Raises:
            InvalidInputError: if the input is malformed; lists every problem.
        """
        # `evaluate.combine` passes the plural names.
        prediction = kwargs.pop("predictions", prediction)
        reference = kwargs.pop("references", reference)
        if isinstance(reference, dict) and "annotations" not in reference and "video_id" in reference:
            reference = [reference]
        self.add_batch(predictions=prediction, references=reference, **kwargs)

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """
        Add predictions, annotations or both.

        Once a whole annotation file is known, predictions are measured as they come and only IoU tables are kept. Until
        then, and with lists of annotations, they are held until `compute`.

        Raises:
            InvalidInputError: if the input is malformed; lists every problem.
            ValueError: if other annotations were added before, or an argument is unknown.
        """
        if kwargs:
            raise ValueError(f"unknown inputs {sorted(kwargs)}: expected predictions and references")
        if references is not None:
            self._add_references(references)
        if predictions is not None:
            self._waiting.append(predictions)
        if self._evaluator is not None:
            waiting, self._waiting = self._waiting, []
            for part in waiting:
                self._evaluator.add(part)

    def _add_references(self, references):
        if isinstance(references, (list, tuple)) and isinstance(self._references, (list, type(None))):
            if self._evaluator is not None:
                raise ValueError("lists of references cannot grow after state() or merge(): add them all before")
            self._references = [*(self._references or []), *references]
        elif self._references is None:
            self._evaluator = VisEvaluator(references)
            self._references = references
        elif references is not self._references and references != self._references:
            raise ValueError("other references were added before: compute() first, or give them once")

    def compute(self, *, predictions=None, references=None, **kwargs):
        """
        Add the input, score everything added since the last call, and forget it.

        Raises:
            InvalidInputError: if the input is malformed; lists every problem.
            ValueError: if there are no references, or an argument is unknown.
        """
        self.add_batch(predictions=predictions, references=references, **kwargs)
        try:
            return self._finish().compute()
        finally:
            self._reset()

    def _finish(self):
        """Return the evaluator, with everything added."""
        if self._references is None:
            raise ValueError("there are no references: give the annotation file's path, its content or its annotations")
        if self._evaluator is None:
            self._evaluator = VisEvaluator(self._references)
            self.add_batch()
        return self._evaluator

    def state(self):
        """Return everything added so far, small enough to gather from all processes (see `VisEvaluator.state`)."""
        return self._finish().state()

    def merge(self, states):
        """Merge the states of other processes (see `VisEvaluator.merge`)."""
        self._finish().merge(states)

    def __len__(self):
        """Return the number of predictions added."""
        waiting = sum(len(part) if isinstance(part, (list, tuple)) else 1 for part in self._waiting)
        return waiting if self._evaluator is None else self._evaluator.num_predictions
