"""Convert an official VITA checkpoint (.pth): the same as `vita-hf convert`."""

import sys

from vita_hf.commands.main import main

if __name__ == "__main__":
    main(["convert", *sys.argv[1:]])
