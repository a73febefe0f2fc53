"""Run a model over a dataset split and score it.

Each video's results go to a file of their own as soon as it is done, so an interrupted run continues where it stopped.
Any number of processes can share the work: all they share is the output folder.
"""
