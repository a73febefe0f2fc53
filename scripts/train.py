"""Train a model: the same as `vita-hf train`."""

import sys

from vita_hf.commands.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
