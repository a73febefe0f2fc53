"""Run a model over a dataset split and score it.

Processes share only the output folder. Each video has its own file of results, so an interrupted run can continue.
"""
