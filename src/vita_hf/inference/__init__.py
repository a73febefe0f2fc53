"""Run a model over a video: `loading.load_model` and `offline.segment_video`, with `options.SegmentationOptions`."""
