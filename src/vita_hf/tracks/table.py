"""The tracks of a video as an HTML table, for notebooks and the web page."""

from html import escape

from .base import Tracks
from .clock import format_clock
from .palette import text_color, track_color

_HEADS = ("track", "class", "score", "visible", "frames")


def html_table(result: Tracks) -> str:
    """
    List the tracks: id in the color of the overlay, class, score, when the track is first and last visible, and in how
    many of the frames.

    Times are minutes and seconds; where the frame rate is unknown, frame numbers take their place.
    """
    if not len(result):
        return "<p>no tracks</p>"
    times, numbers = result.timestamps, result.frame_numbers
    marks = [f"frame {number}" for number in numbers] if times is None else [format_clock(time, 2) for time in times]
    rows = []
    columns = zip(result.track_ids.tolist(), result.label_names, result.scores.tolist(), (result.areas > 0).numpy())
    for track, name, score, visible in columns:
        seen = visible.nonzero()[0]
        span = f"{marks[seen[0]]} – {marks[seen[-1]]}" if len(seen) else "–"
        badge = f'<span style="{_badge_style(track)}">#{track}</span>'
        rows.append((badge, escape(name), f"{score:.2f}", span, f"{len(seen)} of {result.num_frames}"))
    head = "".join(f'<th style="text-align: left">{name}</th>' for name in _HEADS)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _badge_style(track: int) -> str:
    color = track_color(track)
    return f"background: rgb{color}; color: rgb{text_color(color)}; padding: 1px 8px; border-radius: 3px"


__all__ = ["html_table"]
