"""Modules for `evaluate.load`: thin adapters over [`vita_hf.scoring`]. `VIS_AP` is the path of the video metric."""

from pathlib import Path

VIS_AP = str(Path(__file__).resolve().parent / "vis_ap")

__all__ = ["VIS_AP"]
