"""The arguments of each command, without the imports that running it needs, so that --help answers at once."""

from pathlib import Path

# As `recipes.list_recipes` has them, which takes seconds to import.
RECIPES = sorted(file.stem for file in (Path(__file__).parents[2] / "recipes").glob("*.yaml"))
