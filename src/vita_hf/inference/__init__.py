"""
A model run over a video.

`offline.segment_video` segments a video of any length, with the settings of `options.SegmentationOptions`;
`loading.load_model` loads a model and its processor.
"""
