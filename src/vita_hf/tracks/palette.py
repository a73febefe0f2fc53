"""A fixed color for each track id, from a palette that color-blind people can tell apart."""

# The first seven are Okabe and Ito's (https://jfly.uni-koeln.de/color/), without black, which vanishes in dark videos;
# the eighth is a wine red. The others are lighter and darker mixtures of these: each is the one farthest in CIELAB from
# all earlier colors, as seen with normal vision, protanopia and deuteranopia.
_HEX = """
E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 882255
FAF6BD 552600 C4E5F7 F5ED84 E49659 360E22 954200 00507D
"""

Color = tuple[int, int, int]  # red, green and blue, 0 … 255

PALETTE: list[Color] = [(code[0], code[1], code[2]) for code in map(bytes.fromhex, _HEX.split())]


def track_color(track_id: int) -> Color:
    """Return the color of a track, which depends only on its id."""
    return PALETTE[track_id % len(PALETTE)]


def text_color(background: Color) -> Color:
    """Return black or white, whichever has more contrast to the background by WCAG 2.1's relative luminance."""
    channels = [value / 255 for value in background]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast is (lighter + 0.05) / (darker + 0.05).
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)
