"""Segment videos: the same as `vita-hf predict`."""

import sys

from vita_hf.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
