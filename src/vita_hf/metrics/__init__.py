"""`evaluate` modules: thin adapters over [`vita_hf.scoring`]. `evaluate.load` takes `VIS_AP`, a path."""

from pathlib import Path

VIS_AP = str(Path(__file__).resolve().parent / "vis_ap")

__all__ = ["VIS_AP"]
