"""Pictures in a terminal: two pixels a character."""

import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["draws_pictures", "show_pictures"]

_COLUMNS, _LINES = 28, 9  # of one picture
_UPPER_HALF = "▀"


def draws_pictures() -> bool:
    """Whether stdout is a terminal of as many colours as pictures need."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return Console().color_system in ("256", "truecolor")


def show_pictures(paths: Sequence[str], captions: Sequence[str]) -> None:
    """Draw pictures side by side, each with a line below it."""
    from rich.columns import Columns
    from rich.console import Console, Group
    from rich.text import Text

    cells = [
        Group(_half_blocks(path), Text(caption[-_COLUMNS:], no_wrap=True), "")
        for path, caption in zip(paths, captions, strict=True)
    ]
    # without a terminal, too, if asked for by name: less -R shows them
    Console(force_terminal=True).print(Columns(cells, width=_COLUMNS, padding=(0, 2)))


def _half_blocks(path: str) -> Any:
    """Return a picture as text: the upper pixel of each character in its colour, the lower one behind it."""
    from PIL import Image, ImageOps
    from rich.text import Text

    try:
        with Image.open(path, formats=_formats()) as opened:
            opened.draft("RGB", (8 * _COLUMNS, 16 * _LINES))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Text("(cannot be read)".center(_COLUMNS) + "\n" * (_LINES - 1))
    picture.thumbnail((_COLUMNS, 2 * _LINES))
    # Each line as wide, and each picture as high, as the others.
    framed = Image.new("RGBA", (_COLUMNS, 2 * _LINES))
    framed.paste(picture, ((_COLUMNS - picture.width) // 2, 0))
    pixels: Any = framed.load()
    text = Text(no_wrap=True)
    for line in range(_LINES):
        if line:
            text.append("\n")
        for column in range(_COLUMNS):
            upper, lower = pixels[column, 2 * line], pixels[column, 2 * line + 1]
            text.append(*_character(upper, lower))
    return text


def _character(upper: tuple[int, ...], lower: tuple[int, ...]) -> tuple[str, str]:
    if not upper[3]:
        return " ", ""
    style = "#{:02x}{:02x}{:02x}".format(*upper[:3])
    if lower[3]:
        style += " on #{:02x}{:02x}{:02x}".format(*lower[:3])
    return _UPPER_HALF, style


def _formats() -> tuple[str, ...]:
    from sklearn_mm.images import PICTURE_FORMATS

    return tuple(PICTURE_FORMATS)
