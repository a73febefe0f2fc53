"""Fuzzing: read mutated inputs in worker processes with limits on time and memory; `make fuzz`.

A target is a module `target_NAME.py` beside this one:

- `mutate(rng: random.Random) -> bytes` makes an input, always the same one for the same state of `rng`.
- `check(path: Path) -> None` reads a file with this content as users would. It returns, or raises a `ValueError` or
  `OSError` whose message names the file. Everything else is a fault. A check with several readers wraps each in
  `refusals`. It may write into the folder of the file.
- `SUFFIX`, if defined, ends the file's name.

An input is at fault, too, if its check takes more than 5 s of CPU time or 2 GiB above the worker's start, or kills the
process. The driver prints target and seed of each fault, and saves the input with the traceback.
"""

import faulthandler
import logging
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

MEMORY = 2 << 30  # bytes above what the worker needs before its first input
CPU_SECONDS = 5.0
WALL_SECONDS = 60.0  # catches what waits instead of computing, even on a busy machine
MESSAGE_LENGTH = 10_000  # of a refusal

ACCEPTED, REFUSED = "accepted", "refused"


class Fault(NamedTuple):
    """A faulty input: its seed, one line that is equal for equal faults, and all that is known."""

    seed: int
    summary: str
    details: str


class Report(NamedTuple):
    """The outcome of a target's inputs."""

    counts: dict[str, int]
    faults: list[Fault]


@contextmanager
def refusals(path: Path) -> Generator[None]:
    """Let the block refuse a file: with a `ValueError` or `OSError` of moderate length that names it."""
    try:
        yield
    except (ValueError, OSError) as error:
        message = str(error)
        if path.name not in message or len(message) > MESSAGE_LENGTH:
            wrong = "has a message that is too long" if path.name in message else "does not name the file"
            raise AssertionError(f"a refusal {wrong}: {type(error).__name__}: {message[:300]}") from error


def list_targets() -> list[str]:
    """Return the names of all targets."""
    return sorted(file.stem.removeprefix("target_") for file in Path(__file__).parent.glob("target_*.py"))


def make_input(target: ModuleType, seed: int) -> bytes:
    return target.mutate(random.Random(seed))


def run_input(target: ModuleType, content: bytes, folder: Path) -> tuple[str, str]:
    """Check an input in this process. Returns "accepted", "refused" or a fault's summary, and a traceback."""
    path = folder / f"input{getattr(target, 'SUFFIX', '')}"
    path.write_bytes(content)
    try:
        with refusals(path):
            target.check(path)
            return ACCEPTED, ""
        return REFUSED, ""
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "vita_hf" in frame.filename] or frames
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return f"{type(error).__name__} at {place}: {str(error)[:200]}", traceback.format_exc()


def fuzz(target: ModuleType, seeds: range, jobs: int = 1) -> Report:
    """Check the inputs of some seeds in `jobs` worker processes."""
    report = Report({ACCEPTED: 0, REFUSED: 0}, [])
    workers = [_Worker(target, seeds[index::jobs]) for index in range(min(jobs, len(seeds)))]
    while workers:
        ready = wait([worker.connection for worker in workers], timeout=1)
        for worker in list(workers):
            if worker.connection in ready:
                worker.receive(report)
            elif time.monotonic() > worker.deadline:
                worker.process.kill()
            if worker.is_finished:
                workers.remove(worker)
                if worker.remaining:
                    workers.append(_Worker(target, worker.remaining))
    return report


class _Worker:
    """A process that checks the inputs of some seeds, until it ends or dies."""

    def __init__(self, target: ModuleType, seeds: range):
        self.seeds, self.position, self.is_finished = seeds, -1, False
        self.folder = tempfile.TemporaryDirectory(prefix="vita-hf-fuzz-")
        self.connection, theirs = multiprocessing.Pipe(duplex=False)
        arguments = (target, seeds, theirs, Path(self.folder.name))
        self.process = multiprocessing.get_context("fork").Process(target=_work, args=arguments)
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection
        self.deadline = time.monotonic() + WALL_SECONDS

    @property
    def remaining(self) -> range:
        return self.seeds[self.position + 1 :]

    def receive(self, report: Report) -> None:
        """Take the outcome of an input, or find out why the process died."""
        try:
            outcome, details = self.connection.recv()
            self.position += 1
            self.deadline = time.monotonic() + WALL_SECONDS
        except EOFError:
            self.process.join()
            if self.remaining:
                outcome, details = self._cause_of_death(), Path(self.folder.name, "log").read_text(errors="replace")
                self.position += 1
            else:
                outcome = None
            self.is_finished = True
            self.folder.cleanup()
        if outcome in report.counts:
            report.counts[outcome] += 1
        elif outcome is not None:
            report.faults.append(Fault(self.seeds[self.position], outcome, details[-20_000:]))

    def _cause_of_death(self) -> str:
        code = self.process.exitcode or 0
        if -code == signal.SIGPROF:
            return f"more than {CPU_SECONDS:g} s of CPU time"
        if -code == signal.SIGKILL:
            return f"no end within {WALL_SECONDS:g} s"
        return f"crash: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"


def _work(target: ModuleType, seeds: range, connection: Connection, folder: Path) -> None:
    log = (folder / "log").open("w")
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    os.chdir(folder)
    logging.disable()
    warnings.simplefilter("ignore")
    faulthandler.enable(log)
    faulthandler.register(signal.SIGPROF, log, chain=True)  # the default action, which follows, ends the process
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in seeds:
        content = make_input(target, seed)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        outcome = run_input(target, content, folder)
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(outcome)


def save_faults(name: str, target: ModuleType, faults: list[Fault], output: Path) -> None:
    """Print every kind of fault once, and save its first input and details."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.summary.partition(": ")[0] if " at " in fault.summary else fault.summary, []).append(
            fault
        )
    for found in kinds.values():
        first = min(found)
        path = output / f"{name}-{first.seed}{getattr(target, 'SUFFIX', '')}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_input(target, first.seed))
        path.with_name(path.name + ".log").write_text(f"{first.summary}\n\n{first.details}")
        others = f" ({len(found)} such inputs)" if len(found) > 1 else ""
        print(f"FAULT {name}, seed {first.seed}{others}: {first.summary}\n      saved: {path}", flush=True)
