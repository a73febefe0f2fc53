"""
Frames in and out.

`sources.open_video` is the one place that opens a video, whatever it is: a file, a folder of images, an address, frames
in memory, or an iterator of frames. `writer.video_writer` writes one.
"""
