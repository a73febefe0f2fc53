"""Compute the size of resized frames, for the processor and for training."""


def resize_output_size(height: int, width: int, shortest_edge: int, longest_edge: int | None = None) -> tuple[int, int]:
    """
    Compute the size to which VITA resizes a frame.

    The shorter side becomes `shortest_edge`, unless the longer side would then exceed `longest_edge`: in that case the
    longer side becomes `longest_edge`. Sides are rounded to the nearest integer; transformers' own helper rounds down,
    which differs for many sizes.

    Args:
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.
        shortest_edge: Length of the shorter side after resizing.
        longest_edge: Greatest length of the longer side; None sets no limit.

    Returns:
        (height, width) after resizing.

    Example:
    ```python
    >>> from vita_hf.video.resizing import resize_output_size

    >>> resize_output_size(480, 854, shortest_edge=360)
    (360, 641)

    ```
    """
    short, long = float(shortest_edge), max(height, width) * (shortest_edge / min(height, width))
    if longest_edge is not None and long > longest_edge:
        shrink = longest_edge / long
        short, long = short * shrink, long * shrink
    short, long = max(1, int(short + 0.5)), max(1, int(long + 0.5))
    return (short, long) if height <= width else (long, short)
