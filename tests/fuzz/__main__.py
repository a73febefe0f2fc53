"""`make fuzz`, or with PYTHONPATH=tests: `python -m fuzz [TARGET …] [--inputs N]`."""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

from .driver import fuzz, list_targets, run_input, save_faults


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Read mutated inputs in worker processes with limits on time and memory."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(list_targets())} (default: all)")
    parser.add_argument("--inputs", type=int, default=1000, help="inputs for each target (default: 1000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first input's seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="worker processes (default: one a core)")
    parser.add_argument("--output", type=Path, default=Path("fuzz-faults"), help="folder for inputs at fault")
    parser.add_argument("--file", type=Path, help="check this file, a saved input of the one target, in this process")
    args = parser.parse_args()
    if unknown := {*args.targets} - {*list_targets()}:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    num_faults = 0
    for name in args.targets or list_targets():
        target = importlib.import_module(f"fuzz.target_{name}")
        if args.file:
            with tempfile.TemporaryDirectory() as folder:
                print(*run_input(target, args.file.read_bytes(), Path(folder)), sep="\n")
            continue
        start = time.monotonic()
        report = fuzz(target, range(args.first, args.first + args.inputs), args.jobs)
        save_faults(name, target, report.faults, args.output)
        seconds, counts = time.monotonic() - start, {**report.counts, "at fault": len(report.faults)}
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        print(f"{name}: {args.inputs} inputs in {seconds:.0f} s: {outcomes}", flush=True)
        num_faults += len(report.faults)
    sys.exit(bool(num_faults))


if __name__ == "__main__":
    main()
