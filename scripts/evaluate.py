"""Run a model over a dataset split and score it, alone or under `accelerate launch`: the same as `vita-hf evaluate`."""

import sys

from vita_hf.commands.main import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
