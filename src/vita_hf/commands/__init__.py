"""The subcommands of `vita-hf`, a module each.

A module has `HELP` (a line), `add_arguments(parser)`, which also writes the parser's description and examples, and
`run(args)`, which returns an exit code or None. What a user can mend is raised as one of `cli.EXPECTED_ERRORS`.
"""
