"""Arguments of `vita-hf web`."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve a page that segments videos. Only this machine can reach it, unless --host is given."
    add = parser.add_argument
    add("--model", help="directory or Hub id; by default the shipped model, which knows only synthetic shapes")
    add("--device", help="cpu, cuda, cuda:1, mps … (default: a GPU if there is one)")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    add("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    add("--port", type=int, help="(default: the first free one from 7860)")
    add("--max-upload", type=int, default=1000, metavar="MB", help="largest video to accept (default: %(default)s)")
