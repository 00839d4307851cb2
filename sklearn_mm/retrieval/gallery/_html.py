"""What was found as HTML: small pictures beside each other, for a notebook."""

import base64
import html
import io
from typing import Any

from PIL import Image

from sklearn_mm.exceptions import ImageReadError
from sklearn_mm.images import PictureReader

__all__ = ["pictures_as_html"]

_SIDE_PX = 128
_N_QUERIES, _N_PICTURES = 10, 20  # shown at most
_FIGURE = "margin:4px;width:132px;font:11px/1.3 sans-serif;overflow-wrap:anywhere"
_EMPTY = f"width:{_SIDE_PX}px;height:{_SIDE_PX}px;display:flex;align-items:center;justify-content:center;color:#777"


def pictures_as_html(results: list[Any]) -> str:
    """Return the results of queries, one each, as HTML without anything from elsewhere."""
    reader = PictureReader(image_size=_SIDE_PX, resize_size=_SIDE_PX)
    thumbnails: dict[str, str] = {}  # each is read once, however many queries find it
    blocks = []
    for result in results[:_N_QUERIES]:
        figures = []
        for row, path in zip(result.rows()[:_N_PICTURES], result.paths, strict=False):
            if path is not None and path not in thumbnails:
                thumbnails[path] = _thumbnail(reader, path)
            figures.append(_figure(row, "no file known" if path is None else thumbnails[path]))
        n_more = len(result) - _N_PICTURES
        blocks.append(
            f"<p><b>{html.escape(result.queries[0])}</b></p>"
            f'<div style="display:flex;flex-wrap:wrap">{"".join(figures) or "nothing found"}</div>'
            + (f"<p>... {n_more} more</p>" if n_more > 0 else "")
        )
    n_more = len(results) - _N_QUERIES
    return f"<div>{''.join(blocks)}{f'<p>... {n_more} more queries</p>' if n_more > 0 else ''}</div>"


def _figure(row: dict[str, Any], shown: str) -> str:
    beside = "\n".join(f"{name}: {value}" for name, value in row.items())
    return (
        f'<figure style="{_FIGURE}" title="{html.escape(beside)}">'
        + (shown if shown.startswith("<img") else f'<div style="{_EMPTY}">{html.escape(shown)}</div>')
        + f"<figcaption>{html.escape(str(row['id']))}<br>{row['score']:.3f}</figcaption></figure>"
    )


def _thumbnail(reader: PictureReader, path: str) -> str:
    try:
        picture = reader.read(path)[0]
    except ImageReadError as error:  # it was found all the same; why it cannot be shown stands in its place
        return f"cannot be read: {error}"
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=80)
    return f'<img width="{_SIDE_PX}" src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}">'
