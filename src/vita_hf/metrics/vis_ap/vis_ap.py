"""The video instance segmentation metric for `evaluate.load`."""

import datasets

import evaluate
from vita_hf.scoring import VisEvaluator

_DESCRIPTION = """\
Average precision and recall of video instance segmentation as on YouTube-VIS and OVIS: COCO's rules with the IoU of
whole tracks, the pixels that two tracks share over all frames divided by those that either has.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: list of `{"video_id", "category_id", "score", "segmentations"}`, `segmentations` with one RLE or `None`
        for each frame of the video; or the path of a json file with such a list.
    references: path of an annotation file in YouTube-VIS or OVIS form, its content, or the list of its annotations.
        Their number is independent of that of the predictions. The file or its content need to be given only once.

Returns:
    A dict of fractions in [0, 1], −1 where there is no object to be found: AP, AP50, AP75, APs, APm, APl, AR1, AR10,
    AR100, ARs, ARm, ARl, with OVIS's occlusion levels AP_slight, AP_moderate, AP_heavy, and `per_category`, the AP by
    category name.

Example:

    >>> metric = evaluate.load("vis_ap")  # or the path of this folder
    >>> for predictions in one_video_after_the_other:
    ...     metric.add_batch(predictions=predictions, references="valid.json")
    >>> metric.compute()["AP"]
"""

_CITATION = """\
@inproceedings{yang2019video,
  title={Video Instance Segmentation},
  author={Yang, Linjie and Fan, Yuchen and Xu, Ning},
  booktitle={ICCV},
  year={2019}
}
@article{qi2022occluded,
  title={Occluded Video Instance Segmentation: A Benchmark},
  author={Qi, Jiyang and Gao, Yan and Hu, Yao and Wang, Xinggang and Liu, Xiaoyu and Bai, Xiang and Belongie, Serge and
    Yuille, Alan and Torr, Philip HS and Bai, Song},
  journal={IJCV},
  year={2022}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class VisAp(evaluate.Metric):
    """Passes everything to `VisEvaluator`: `evaluate`'s own buffer cannot hold tracks with frames missing."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # What `evaluate.combine` asks for names by; nothing is ever encoded with it.
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
        """Adds one prediction, or a list of them, and annotations. Either may be left out.

        Args:
            prediction: one prediction as described below, or a list of them.
            reference: one annotation, or anything that `references` may be.

        Raises:
            InvalidInputError: lists what is wrong, entry by entry.
        """
        # `evaluate.combine` passes the plural names here.
        prediction = kwargs.pop("predictions", prediction)
        reference = kwargs.pop("references", reference)
        if isinstance(reference, dict) and "annotations" not in reference and "video_id" in reference:
            reference = [reference]
        self.add_batch(predictions=prediction, references=reference, **kwargs)

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Adds predictions and annotations. Either may be left out.

        Once a whole annotation file (path or content) is known, predictions are compared as they come and only IoU
        tables are kept. Until then, and with lists of annotations, they are held until `compute`.

        Raises:
            InvalidInputError: lists what is wrong, entry by entry.
            ValueError: a second annotation file, or arguments that are not known.
        """
        if kwargs:
            raise ValueError(f"unknown inputs {sorted(kwargs)}: expected predictions and references")
        if references is not None:
            self._take_references(references)
        if predictions is not None:
            self._waiting.append(predictions)
        if self._evaluator is not None:
            waiting, self._waiting = self._waiting, []
            for part in waiting:
                self._evaluator.add(part)

    def _take_references(self, references):
        if isinstance(references, (list, tuple)):
            if self._references is not None and not isinstance(self._references, list):
                raise ValueError("annotations were given as a whole file before: they cannot be extended by a list")
            self._references = [*(self._references or []), *references]
        elif self._references is None:
            self._evaluator = VisEvaluator(references)
            self._references = references
        elif references is not self._references and references != self._references:
            raise ValueError("other references were added before: compute() first, or give them once")

    def compute(self, *, predictions=None, references=None, **kwargs):
        """Adds what is given, scores everything added since the last call and forgets it.

        Raises:
            InvalidInputError: lists what is wrong, entry by entry.
            ValueError: there are no references, or arguments that are not known.
        """
        self.add_batch(predictions=predictions, references=references, **kwargs)
        try:
            return self._finished().compute()
        finally:
            self._reset()

    def _finished(self):
        if self._references is None:
            raise ValueError("there are no references: give the annotation file's path, its content or its annotations")
        if self._evaluator is None:
            self._evaluator = VisEvaluator(self._references)
            self.add_batch()
        return self._evaluator

    def state(self):
        """What was added so far, small enough to be gathered from all processes (see `VisEvaluator.state`)."""
        return self._finished().state()

    def merge(self, states):
        """Takes over what other processes added (see `VisEvaluator.merge`)."""
        self._finished().merge(states)

    def __len__(self):
        """Number of predictions added."""
        waiting = sum(len(part) if isinstance(part, (list, tuple)) else 1 for part in self._waiting)
        return waiting if self._evaluator is None else self._evaluator.num_predictions

    def _compute(self, predictions, references):
        raise NotImplementedError("`compute` is overridden")
