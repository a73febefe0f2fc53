"""The training loop."""

import contextlib
import logging
import time
from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.utils.data import Dataset

from ..data.clips.collate import collate_clips
from ..data.clips.schedule import StepBatchSampler
from ..data.clips.streamed import StreamBatchSampler, StreamedClips
from ..evaluation.run import evaluate_split
from ..evaluation.splits import Split
from ..image_processing_vita import VitaVideoProcessor
from ..loss_vita import count_loss_normalizers, reduce_loss_normalizers
from ..modeling_vita import VitaForVideoInstanceSegmentation
from ..progress import progress_bar
from ..recipes import TrainingSettings
from .checkpoints import Checkpoints
from .loader import load_batches
from .log import TrainingLog
from .optimizer import make_optimizer, set_learning_rate
from .options import TrainingOptions
from .signals import StopRequest, TrainingInterrupted, stop_on_signals

logger = logging.getLogger(__name__)

_STATE = ("skipped", "place", "sums", "seconds")  # attributes that a checkpoint keeps


class Trainer:
    """
    Trains a model on clips. A resumed run is bit-for-bit identical to an uninterrupted one: all random numbers of a
    step depend only on the seed and the step number.

    Args:
        accelerator: Controls devices, processes and precision.
        model: The model, in float32, on any device.
        processor: Normalizes the frames.
        settings: How the model is optimized.
        clips: A [`~vita_hf.data.clips.schedule.ClipDataset`] or [`~vita_hf.data.clips.streamed.StreamedClips`].
        options: How the training runs.
        split: The split to score the model on.

    Attributes:
        step: Number of finished steps.
        seconds: Duration of the training so far, over all its runs.
        log: The log of the training.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: VitaForVideoInstanceSegmentation,
        processor: VitaVideoProcessor,
        settings: TrainingSettings,
        clips: Dataset,
        options: TrainingOptions,
        split: Split | None = None,
    ):
        self.accelerator, self.settings, self.clips, self.options = accelerator, settings, clips, options
        self.config, self.processor, self.split = model.config, processor, split
        self.model, self.optimizer = accelerator.prepare(model, make_optimizer(model, settings))
        self.checkpoints = Checkpoints(options.output / "checkpoints", options.keep)
        self.log = TrainingLog(options.output / "log.jsonl", enabled=accelerator.is_main_process)
        self.step = 0
        self.skipped = 0  # clips that could not be loaded, in all processes
        self.sums: dict[str, list[float]] = {}  # of each term since the last log entry: sum and number of steps
        self.place: list[int] | None = None  # of the next step's first row, in a stream
        self.seconds = 0.0
        self._clock = time.monotonic()

    def resume(self) -> bool:
        """
        Continue from the newest checkpoint; return whether there is one.

        Raises:
            ValueError: if the checkpoint is beyond `settings.steps`, or damaged.
        """
        steps = self.checkpoints.steps()
        if steps:
            self.step = steps[-1]
            if self.step > self.settings.steps:
                raise ValueError(
                    f"training.steps: expected at least {self.step}, the step of {self.checkpoints.path(self.step)}, "
                    f"or another --output; got {self.settings.steps}"
                )
            for name, value in self.checkpoints.load(self.accelerator, self.step, _STATE).items():
                setattr(self, name, value)
        self.log.rewind(self.step)
        return bool(steps)

    def save(self) -> None:
        """Write a checkpoint of the current step."""
        self._update_seconds()
        state = {name: getattr(self, name) for name in _STATE}
        self.checkpoints.save(self.accelerator, self.step, state)

    def run(self) -> None:
        """
        Train up to the last step.

        Raises:
            TrainingInterrupted: after SIGINT or SIGTERM, once a checkpoint of the current step is saved.
            ValueError, OSError: if the loss is not finite or a clip cannot be loaded.
        """
        options, settings = self.options, self.settings
        samples = self._samples()
        self.model.train()
        self._clock = time.monotonic()
        progress = progress_bar(
            description="training",
            total=settings.steps,
            initial=self.step,
            unit="step",
            shown=self.accelerator.is_main_process,
        )
        with progress, contextlib.closing(self._load(samples)) as batches, stop_on_signals() as stop:
            self._evaluate_if_due(stop)  # a kill may have cut the last evaluation short
            while self.step < settings.steps:
                terms, stopping = self._train_step([next(batches) for _ in range(options.micro_batches)], stop)
                stop.requested |= stopping
                self.step += 1
                if isinstance(samples, StreamBatchSampler):
                    self.place = samples.place(self.step)
                self._record(terms)
                progress.set_postfix(loss=f"{terms['loss']:.3f}", refresh=False)
                progress.update()
                finished = self.step == settings.steps
                if stopping or finished or self._evaluation_is_due() or self.step % options.checkpoint_every == 0:
                    self.save()
                if stopping and not finished:
                    raise TrainingInterrupted(f"stopped after step {self.step}; run the same command to continue")
                self._evaluate_if_due(stop)
        self._update_seconds()

    def _samples(self) -> StepBatchSampler | StreamBatchSampler:
        sampler = StepBatchSampler(
            self.settings.steps,
            self.settings.batch_size,
            micro_batches=self.options.micro_batches,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
            start_step=self.step,
        )
        return StreamBatchSampler(self.clips, sampler, self.place) if isinstance(self.clips, StreamedClips) else sampler

    def _load(self, samples: StepBatchSampler | StreamBatchSampler) -> Generator[dict[str, Any]]:
        processor = self.processor
        collate = partial(
            collate_clips,
            image_mean=processor.image_mean,
            image_std=processor.image_std,
            do_normalize=processor.do_normalize,
            do_rescale=processor.do_rescale,
            rescale_factor=processor.rescale_factor,
            size_divisor=processor.size_divisor,
        )
        on_gpu = self.accelerator.device.type == "cuda"
        return load_batches(self.clips, samples, collate, workers=self.options.workers, pin_memory=on_gpu)

    def _train_step(self, batches: list[dict[str, Any]], stop: StopRequest) -> tuple[dict[str, float], bool]:
        """Take one optimizer step on its micro-batches; return what to log, and whether any process is to stop."""
        rate = set_learning_rate(self.optimizer, self.settings, self.step)
        # The losses draw points, and drop path draws layers.
        entropy = [self.settings.seed, self.step, self.accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        losses = self._accumulate_gradients(batches)
        norm = None
        if self.settings.max_grad_norm:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        means, stopping = self._average(losses, batches, stop)
        if norm is not None and np.isfinite(float(norm)):  # fp16: the gradient scaler skips a step of infinite norm
            means["grad_norm"] = float(norm)
        return {"learning_rate": rate, **means}, stopping

    def _accumulate_gradients(self, batches: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Run the model forward and backward on each micro-batch; return the loss terms averaged over them."""
        accelerator, device = self.accelerator, self.accelerator.device
        presence = [batch["instance_presence"].split(batch["instances"]) for batch in batches]
        # All micro-batches and processes share their divisors, so that together they equal a single batch.
        counts = [count_loss_normalizers(self.config, clips) for clips in presence]
        totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
        normalizers = reduce_loss_normalizers(totals, device, len(batches))
        losses: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            is_last = index == len(batches) - 1  # the processes exchange gradients once
            with contextlib.nullcontext() if is_last else accelerator.no_sync(self.model):
                outputs = self.model(
                    pixel_values_videos=batch["pixel_values_videos"].to(device, non_blocking=True),
                    mask_labels=batch["mask_labels"].to(device, non_blocking=True).split(batch["instances"]),
                    class_labels=batch["class_labels"].split(batch["instances"]),  # checked on the CPU, then copied
                    instance_presence=presence[index],
                    loss_normalizers=normalizers,
                )
                accelerator.backward(outputs.loss / len(batches))
            for name, term in {"loss": outputs.loss, **outputs.loss_dict}.items():
                losses[name] = losses.get(name, 0) + term.detach().float() / len(batches)
        return losses

    def _average(
        self, losses: dict[str, Tensor], batches: list[dict[str, Any]], stop: StopRequest
    ) -> tuple[dict[str, float], bool]:
        """Average the losses over processes, log what any process skipped, and tell whether any is to stop."""
        skipped = [message for batch in batches for message in batch["skipped"]]
        events = torch.tensor([bool(stop), len(skipped)], device=self.accelerator.device, dtype=torch.float32)
        sums = self.accelerator.reduce(torch.cat([events, torch.stack(list(losses.values()))]), "sum")
        stops, skips, *totals = sums.tolist()
        if skips:
            self.skipped += round(skips)
            for message in gather_object(skipped):
                if self.accelerator.is_main_process:
                    logger.warning("skipped: %s", message)
        means = {name: total / self.accelerator.num_processes for name, total in zip(losses, totals)}
        if not np.isfinite(means["loss"]):
            videos = [video for batch in batches for video in batch["video_ids"]]
            raise ValueError(f"step {self.step}: the loss is {means['loss']}; videos of this process: {videos}")
        return means, stops > 0

    def _record(self, terms: dict[str, float]) -> None:
        """Add a step's terms to the means of the next log entry, and write the entry if it is due."""
        for name, value in terms.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]
        if self.step % self.options.log_every and self.step != self.settings.steps:
            return
        means = {name: total / count for name, (total, count) in self.sums.items()}
        means["learning_rate"] = terms["learning_rate"]
        self.sums = {}
        self.log.write({"step": self.step, **means, "skipped": self.skipped})
        self.accelerator.log(means, step=self.step)

    def _evaluation_is_due(self) -> bool:
        if self.split is None:
            return False
        every = self.options.evaluate_every
        if self.step != self.settings.steps and not (every and self.step and self.step % every == 0):
            return False
        scored = any("evaluation" in entry and entry["step"] == self.step for entry in self.log.entries())
        return not broadcast_object_list([scored])[0]  # the main process has the log

    def _evaluate_if_due(self, stop: StopRequest) -> None:
        if self.split is None or not self._evaluation_is_due():
            return
        model = self.accelerator.unwrap_model(self.model)
        with stop.stop_at_once(f"stopped before step {self.step} was scored; run the same command to continue"):
            folder = self.options.output / "evaluation" / f"step-{self.step:09d}"
            scores = evaluate_split(self.accelerator, model.eval(), self.processor, self.split, folder)
        self.model.train()
        self.log.write({"step": self.step, "evaluation": scores})
        numbers = {f"evaluation/{name}": value for name, value in scores.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=self.step)

    def _update_seconds(self) -> None:
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now


__all__ = ["Trainer"]
