"""Make a set of synthetic videos in YouTube-VIS's form: annotations.json and JPEGImages/<video>/<frame>.jpg."""

import argparse
import os

from vita_hf.data.synthetic import CATEGORY_NAMES, write_synthetic_dataset

EXAMPLE = """example:
  python scripts/make_synthetic_dataset.py --seed 1 --videos 1000 --length 16 --output data/synthetic/train

The same arguments give the same videos, and a larger --videos or --length only adds to them.
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=f"{__doc__} Categories: {', '.join(CATEGORY_NAMES)}.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--seed", type=int, required=True, help="what the videos are drawn from")
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--length", type=int, default=16, help="frames in a video")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    args = parser.parse_args(argv)
    try:
        written = write_synthetic_dataset(
            args.output,
            seed=args.seed,
            videos=args.videos,
            size=tuple(args.size),
            length=args.length,
            workers=args.workers,
        )
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"Written: {written}")


if __name__ == "__main__":
    main()
