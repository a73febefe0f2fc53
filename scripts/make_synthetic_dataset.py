"""Make a dataset of synthetic videos in the format of YouTube-VIS: annotations.json and JPEGImages/<video>/<frame>.jpg.

The same arguments give the same videos; a larger --videos or --length only adds to them.
"""

import argparse
import os

from vita_hf.data.synthetic import CATEGORY_NAMES, write_synthetic_dataset

EXAMPLE = """example:
  python scripts/make_synthetic_dataset.py --seed 1 --videos 1000 --length 16 --output data/synthetic/train
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nCategories: {', '.join(CATEGORY_NAMES)}.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--seed", type=int, required=True, help="decides the content of the videos")
    parser.add_argument("--videos", type=int, default=100, help="number of videos")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--length", type=int, default=16, help="number of frames per video")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="number of rendering processes")
    options = vars(parser.parse_args(argv))
    try:
        written = write_synthetic_dataset(options.pop("output"), **options)
    except (OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"Written: {written}")


if __name__ == "__main__":
    main()
