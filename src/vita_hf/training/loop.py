"""The training loop."""

import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.clips.collate import collate_clips
from ..data.clips.schedule import StepBatchSampler
from ..data.clips.streamed import StreamBatchSampler, StreamedClips
from ..files import write_atomically
from ..image_processing_vita import VitaVideoProcessor
from ..loss_vita import count_loss_normalizers, reduce_loss_normalizers
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..recipes import TrainingSettings
from .checkpoints import Checkpoints
from .optimizer import make_optimizer, set_learning_rate

logger = logging.getLogger(__name__)

LABELS = ("mask_labels", "class_labels")


class TrainingInterrupted(Exception):
    """The training was asked to stop by a signal; its state is saved."""


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """
    How a training runs: none of it says what is trained on what.

    Attributes:
        output: The training's folder.
        micro_batches: Forward passes a step is cut into; the more, the less memory. Clips are padded to the largest of
            their micro-batch, so that results are equal only where all have the same size.
        workers: Processes that load clips, for each training process.
        log_every: Steps that a line of the log is the mean of.
        checkpoint_every, keep: Steps between checkpoints, and how many of them are kept.
        evaluate_every: Steps between evaluations; 0 for none before the end.

    Raises:
        ValueError: a number that can't work; says which.
    """

    output: Path
    micro_batches: int = 1
    workers: int = 2
    log_every: int = 20
    checkpoint_every: int = 1000
    keep: int = 2
    evaluate_every: int = 0

    def __post_init__(self):
        for name in ("micro_batches", "workers", "log_every", "checkpoint_every", "keep", "evaluate_every"):
            least = 0 if name in ("workers", "evaluate_every") else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")


class Trainer:
    """
    Trains a model on the clips of a schedule, resumably and to the bit.

    Everything random in a step follows from the seed and the step's number, so that a training that goes on from a
    checkpoint equals one that was never interrupted.

    Args:
        accelerator: Decides on devices, processes and precision.
        model: In float32, on any device.
        processor: Whose normalisation the frames get.
        settings, options: See there.
        clips: A [`~vita_hf.data.mixing.ClipDataset`] or [`~vita_hf.data.streamed_clips.StreamedClips`].
        evaluate: Called with (unwrapped model, step) in every process; returns scores.
        data: What tells that a resumed training has other data; plain values.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: VitaForVideoInstanceSegmentation,
        processor: VitaVideoProcessor,
        settings: TrainingSettings,
        clips: Dataset,
        options: LoopOptions,
        evaluate: Callable[[VitaForVideoInstanceSegmentation, int], dict[str, Any]] | None = None,
        data: Any = None,
    ):
        self.accelerator, self.settings, self.options, self.clips = accelerator, settings, options, clips
        self.config, self.evaluate, self.data = model.config, evaluate, data
        self.collate = partial(
            _collate_or_fail,
            image_mean=processor.image_mean,
            image_std=processor.image_std,
            rescale_factor=processor.rescale_factor,
            size_divisor=processor.size_divisor,
        )
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(model, settings))
        self.checkpoints = Checkpoints(options.output / "checkpoints", options.keep)
        self.log = TrainingLog(options.output / "log.jsonl", enabled=accelerator.is_main_process)
        self.step = 0
        self.skipped = 0
        self.sums: dict[str, list[float]] = {}  # of each term since the log's last line: its sum, and of how many steps
        self.place: list[int] | None = None  # in a stream, of the next step
        self.seconds = 0.0  # that `run` took, also before this process
        self._started = time.monotonic()

    def resume(self) -> bool:
        """
        Go on from the newest complete checkpoint; False where there is none.

        Raises:
            ValueError: it was trained on other data, or further than `settings.steps`.
        """
        steps = self.checkpoints.steps()
        if steps:
            state = self.checkpoints.read_state(steps[-1])
            if state["data"] != self.data:
                raise ValueError(
                    f"{self.checkpoints.path(steps[-1])} was trained on {state['data']}, this is {self.data}: expected "
                    "the same data, or another --output"
                )
            if state["step"] > self.settings.steps:
                raise ValueError(
                    f"training.steps: expected at least {state['step']}, where {self.checkpoints.path(steps[-1])} is, "
                    f"or another --output; got {self.settings.steps}"
                )
            self.checkpoints.load(self.accelerator, steps[-1])
            self.step, self.skipped, self.place = state["step"], state["skipped"], state["place"]
            self.sums, self.seconds = state["sums"], state["seconds"]
        self.log.rewind(self.step)
        return bool(steps)

    def save(self) -> None:
        """Write a checkpoint of the step that was reached."""
        names = ("skipped", "place", "sums", "data", "seconds")
        self._count_seconds()
        self.checkpoints.save(self.accelerator, self.step, {name: getattr(self, name) for name in names})

    def run(self) -> None:
        """Train to the last step.

        Raises:
            TrainingInterrupted: after SIGINT or SIGTERM, with a checkpoint of the step that was reached.
            ValueError: the loss is not finite.
        """
        options, settings = self.options, self.settings
        self._switch_to_training()
        loader = self._loader()
        self._started = time.monotonic()
        batches = iter(loader)
        progress = tqdm(
            total=settings.steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )
        with progress, _shut_down(batches), _stop_signals() as stop:
            self._evaluate_if_due(stop)  # where a kill cut it short
            while self.step < settings.steps:
                terms, asked = self._train_step([_checked(next(batches)) for _ in range(options.micro_batches)], stop)
                stop.asked |= asked  # what one process was asked, all do
                self.step += 1
                if isinstance(loader.batch_sampler, StreamBatchSampler):
                    self.place = loader.batch_sampler.place(self.step)
                progress.update()
                self._record(terms, progress)
                last = self.step == settings.steps
                if asked or last or self._evaluation_is_due() or self.step % options.checkpoint_every == 0:
                    self.save()
                if asked and not last:
                    raise TrainingInterrupted(f"stopped after step {self.step}; call again to go on")
                self._evaluate_if_due(stop)
        self._count_seconds()

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds, self._started = self.seconds + now - self._started, now

    def _switch_to_training(self) -> None:
        self.model.train()
        if self.config.freeze_detector:  # keep the statistics of its batch norms
            self.accelerator.unwrap_model(self.model).model.pixel_level_module.eval()

    def _loader(self) -> DataLoader:
        sampler = StepBatchSampler(
            self.settings.steps,
            self.settings.batch_size,
            micro_batches=self.options.micro_batches,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
            start_step=self.step,
        )
        if isinstance(self.clips, StreamedClips):
            sampler = StreamBatchSampler(self.clips, sampler, self.place)
        return DataLoader(
            _Attempts(self.clips),
            batch_sampler=sampler,
            num_workers=self.options.workers,
            collate_fn=self.collate,
            worker_init_fn=_leave_signals_to_main_process,
            pin_memory=self.accelerator.device.type == "cuda",
            generator=torch.Generator().manual_seed(0),  # workers' seeds: not from the global generator
        )

    def _train_step(self, batches: list[dict], stop: "StopRequest") -> tuple[dict[str, float], bool]:
        """One optimiser step; the loss terms' means over processes, and whether any process was asked to stop."""
        accelerator, settings, micro_batches = self.accelerator, self.settings, len(batches)
        device = accelerator.device
        rate = set_learning_rate(self.optimizer, settings, self.step)
        labels = [
            {name: batch[name].to(device, non_blocking=True).split(batch["instances"]) for name in LABELS}
            for batch in batches
        ]
        # Counted over all micro-batches and processes, so that accumulated steps equal whole ones.
        presence = [batch["instance_presence"].split(batch["instances"]) for batch in batches]
        counts = [count_loss_normalizers(self.config, present) for present in presence]
        summed = {name: sum(count[name] for count in counts) for name in counts[0]}
        normalizers = reduce_loss_normalizers(summed, device, micro_batches)
        seed = np.random.SeedSequence([settings.seed, self.step, accelerator.process_index]).generate_state(1)[0]
        torch.manual_seed(int(seed))  # the losses' points, drop path

        totals: dict[str, torch.Tensor] = {}
        for index, batch in enumerate(batches):
            waits = index < micro_batches - 1  # for the last micro-batch, to exchange gradients once
            with accelerator.no_sync(self.model) if waits else contextlib.nullcontext():
                pixels = batch["pixel_values_videos"].to(device, non_blocking=True)
                outputs = self.model(
                    pixel_values_videos=pixels,
                    **labels[index],
                    instance_presence=presence[index],
                    loss_normalizers=normalizers,
                )
                accelerator.backward(outputs.loss / micro_batches)
            for name, term in {"loss": outputs.loss, **outputs.loss_dict}.items():
                totals[name] = totals.get(name, 0) + term.detach().float() / micro_batches
        norm = None
        if settings.max_grad_norm:
            norm = accelerator.clip_grad_norm_(self.model.parameters(), settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

        skipped = [message for batch in batches for message in batch["skipped"]]
        share = [torch.tensor(float(value), device=device) for value in (bool(stop), len(skipped))]
        reduced = accelerator.reduce(torch.stack([*share, *totals.values()]), "sum").tolist()
        if reduced[1]:
            self.skipped += round(reduced[1])
            for message in gather_object(skipped):  # other processes' logging is quiet
                if accelerator.is_main_process:
                    logger.warning("skipped: %s", message)
        terms = {name: value / accelerator.num_processes for name, value in zip(totals, reduced[2:])}
        if not np.isfinite(terms["loss"]):
            videos = [video for batch in batches for video in batch["video_ids"]]
            raise ValueError(f"step {self.step}: the loss is {terms['loss']}; videos of this process: {videos}")
        if norm is not None and np.isfinite(float(norm)):  # fp16: a step that the scaler leaves out
            terms["grad_norm"] = float(norm)
        return {"learning_rate": rate, **terms}, reduced[0] > 0

    def _record(self, terms: dict[str, float], progress: tqdm) -> None:
        for name, value in terms.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]
        if self.step % self.options.log_every and self.step != self.settings.steps:
            return
        means = {name: total / count for name, (total, count) in self.sums.items()}
        means["learning_rate"] = terms["learning_rate"]
        self.sums = {}
        progress.set_postfix(loss=f"{means['loss']:.3f}", refresh=False)
        self.log.write({"step": self.step, **means, "skipped": self.skipped})
        self.accelerator.log(means, step=self.step)

    def _evaluation_is_due(self) -> bool:
        last, every = self.step == self.settings.steps, self.options.evaluate_every
        if self.evaluate is None or not (last or (self.step and every and self.step % every == 0)):
            return False
        due = not any("evaluation" in entry and entry["step"] == self.step for entry in self.log.entries())
        return bool(broadcast_object_list([due])[0])  # the log is the main process's

    def _evaluate_if_due(self, stop: "StopRequest") -> None:
        if not self._evaluation_is_due():
            return
        model = self.accelerator.unwrap_model(self.model)
        with stop.at_once(f"stopped before the scores of step {self.step} were there; call again to go on"):
            scores = self.evaluate(model.eval(), self.step)
        self._switch_to_training()
        self.log.write({"step": self.step, "evaluation": scores})
        self.accelerator.log({f"evaluation/{k}": v for k, v in scores.items() if isinstance(v, float)}, step=self.step)


class TrainingLog:
    """A json object a line: means of the loss terms every few steps, and scores.

    Args:
        path: the file.
        enabled: False in all processes but one, which then write nothing.
    """

    def __init__(self, path: Path, enabled: bool):
        self.path, self.enabled = path, enabled

    def entries(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]  # a torn last line is dropped

    def rewind(self, step: int) -> None:
        """Forget what came after a step."""
        if self.enabled:
            kept = [entry for entry in self.entries() if entry["step"] <= step]
            write_atomically(self.path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())

    def write(self, entry: dict[str, Any]) -> None:
        if self.enabled:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


class StopRequest:
    """True once a signal has asked for an end."""

    def __init__(self):
        self.asked = False
        self._message: str | None = None  # of what can be left at any time

    def __bool__(self) -> bool:
        return self.asked

    @contextlib.contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """Leave the context by `TrainingInterrupted` as soon as an end is asked for, or was before."""
        self._message = message
        try:
            if self.asked:
                raise TrainingInterrupted(message)
            yield
        finally:
            self._message = None

    def handle(self, number: int, frame) -> None:
        """Signal handler. A launcher passes on SIGTERM that a batch system may send to every process besides."""
        again, self.asked = self.asked, True
        if self._message is not None and not again:
            raise TrainingInterrupted(self._message)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt


class _Attempts(Dataset):
    """Items, or the errors that they end in. A DataLoader would wrap those of its workers in a RuntimeError."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, item):
        try:
            return self.dataset[item]
        except (ValueError, OSError) as error:
            return error


def _collate_or_fail(clips: list[dict | Exception], **options) -> dict | Exception:
    failed = [clip for clip in clips if isinstance(clip, Exception)]
    return failed[0] if failed else collate_clips(clips, **options)


def _checked(batch: dict | Exception) -> dict:
    if isinstance(batch, Exception):
        raise batch
    return batch


def _leave_signals_to_main_process(worker: int) -> None:
    # Ctrl-C reaches every process of a terminal, a batch system's SIGTERM every process of a job; the main one still
    # needs its workers to finish the step, and ends them.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _shut_down(batches: Iterator) -> Iterator[None]:
    """End a DataLoader's workers whatever happens: they would not heed the SIGTERM that Python sends at its exit."""
    try:
        yield
    finally:
        if hasattr(batches, "_shutdown_workers"):
            batches._shutdown_workers()


@contextlib.contextmanager
def _stop_signals() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM end the training after the current step; a second SIGINT at once."""
    stop = StopRequest()
    before = {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["LoopOptions", "Trainer", "TrainingInterrupted", "TrainingLog"]
