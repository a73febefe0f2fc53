"""The size of resized frames, for the processor and for training."""


def resize_output_size(height: int, width: int, shortest_edge: int, longest_edge: int | None = None) -> tuple[int, int]:
    """
    Compute the size to which VITA resizes a frame: 480×854 at 360 gives 360×641.

    The shorter side becomes `shortest_edge`; if the longer one then exceeds `longest_edge`, both shrink until it
    doesn't. Rounded to the nearest; transformers' own helper rounds down instead, which differs for many sizes.
    """
    short, long = float(shortest_edge), max(height, width) * (shortest_edge / min(height, width))
    if longest_edge is not None and long > longest_edge:
        shrink = longest_edge / long
        short, long = short * shrink, long * shrink
    short, long = max(1, int(short + 0.5)), max(1, int(long + 0.5))
    return (short, long) if height <= width else (long, short)


__all__ = ["resize_output_size"]
