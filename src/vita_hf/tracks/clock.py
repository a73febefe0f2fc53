"""Times as people read them."""


def format_clock(seconds: float, digits: int) -> str:
    """Format a time as minutes and seconds, with hours if there are any: 1:05.50."""
    ticks = round(seconds * 10**digits)
    minutes, ticks = divmod(ticks, 60 * 10**digits)
    rest = f"{ticks / 10**digits:0{3 + digits if digits else 2}.{digits}f}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest}" if minutes >= 60 else f"{minutes}:{rest}"


__all__ = ["format_clock"]
