"""
The commands of `vita-hf`; `main.COMMANDS` lists them.

Each command is a module here with `run(args)`, which returns an exit code or None, and a module of `arguments` with
`add_arguments(parser)`.
"""
