"""Compile the kernels ahead of their first use."""

import argparse
import sys
from pathlib import Path

from .build import BuildError, build
from .packaging import package


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vita_hf.ops", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build_parser = commands.add_parser("build", help="compile into the cache and print the paths of the libraries")
    build_parser.add_argument("--cuda", action="store_true", help="compile the CUDA kernel as well as the C++ kernels")
    package_parser = commands.add_parser("package", help="compile and write a folder for kernels.LocalLayerRepository")
    package_parser.add_argument("folder", type=Path)
    package_parser.add_argument("--cuda", action="store_true", help="package the CUDA kernel instead of the C++ kernel")
    for command, libraries in ((build_parser, "one library for each"), (package_parser, "all in one library")):
        command.add_argument(
            "--arch",
            nargs="+",
            default=[],
            metavar="X.Y",
            help=f"compute capabilities like 9.0, {libraries}; by default those of the devices of this machine",
        )
    args = parser.parse_args()
    if args.arch and not args.cuda:
        parser.error("--arch needs --cuda")
    try:
        if args.command == "package":
            print(package(args.folder, "cuda" if args.cuda else "cpp", args.arch))
            return 0
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
