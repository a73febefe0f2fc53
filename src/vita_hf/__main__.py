"""`python -m vita_hf` is `vita-hf`."""

from .commands.main import main

main()
