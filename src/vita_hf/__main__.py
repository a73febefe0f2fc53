"""`python -m vita_hf`: the same as `vita-hf`."""

from .commands.main import main

main()
