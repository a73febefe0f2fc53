"""A model run over a video: `loading.load_model` and `offline.segment_video`, with `options.SegmentationOptions`."""
