"""
What a segmentation is: tracks with masks, built from a model's outputs, and drawn over their video.

`instances.VideoInstances` is what users get; `building` makes it, `drawing` and `contact_sheet` show it.
"""
