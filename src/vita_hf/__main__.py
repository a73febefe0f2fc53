"""`python -m vita_hf`: the same as `vita-hf`."""

from .cli import main

main()
