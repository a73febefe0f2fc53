"""Read and write videos. `sources.open_video` opens a video of any kind, `writer.video_writer` writes one."""
