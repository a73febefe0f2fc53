"""Segment videos: the same as `vita-hf predict`."""

import sys

from vita_hf.commands.main import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
