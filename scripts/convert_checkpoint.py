"""Convert an official VITA checkpoint (.pth): the same as `vita-hf convert`."""

import argparse

from vita_hf.cli import add_convert_arguments, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_convert_arguments(parser)
    run(parser, None)
