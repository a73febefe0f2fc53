"""`python -m vita_hf.ops build` compiles the kernels ahead of their first use."""

import argparse
import sys

from .build import BuildError, build


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vita_hf.ops", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="compile into the cache and print the libraries' paths")
    command.add_argument("--cuda", action="store_true", help="the CUDA kernel as well as the C++ one")
    command.add_argument(
        "--arch",
        nargs="+",
        default=(),
        metavar="X.Y",
        help="compute capabilities like 9.0, a library for each; by default one for this machine's devices",
    )
    args = parser.parse_args()
    if args.arch and not args.cuda:
        parser.error("--arch goes with --cuda")
    try:
        print(build("cpp", retry=True))
        if args.cuda:
            for arches in [[arch] for arch in args.arch] or [[]]:
                print(build("cuda", arches, retry=True))
    except BuildError as error:
        print(f"vita-hf: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
