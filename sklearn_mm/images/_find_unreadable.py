"""Which pictures of many cannot be read, found before anything is trained on them."""

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from sklearn_mm._device import n_threads
from sklearn_mm.images._reading import PictureReader, check_formats
from sklearn_mm.images._rows import Pictures, ReadFailure, read_ahead

__all__ = ["find_unreadable"]

_AHEAD = 64  # pictures that may be decoded and not yet looked at
_SIDE = 224  # large JPEG files are decoded at a fraction of their size, as encoders do


def find_unreadable(
    images: Any,
    *,
    decode: bool = True,
    extra_formats: Sequence[str] = (),
    n_jobs: int | None = None,
    verbose: int = 0,
) -> list[ReadFailure]:
    """Find the pictures that no encoder of this library could read.

    Parameters
    ----------
    images : sequence of pictures, length n_images
        Of any kind that `FullNetworkEmbedding` takes.
    decode : bool, default=True
        Whether to decode each picture, which is what tells a damaged one. False looks at the headers of files alone:
        many times faster, it tells what is missing and what is no picture.
    extra_formats : sequence of str, default=()
        As in the encoders: formats that files may have beside the usual ones.
    n_jobs : int, default=None
        Threads that read; None takes as many as torch is set to, -1 one for each core.
    verbose : int, default=0
        Whether to show a progress bar.

    Returns
    -------
    list of ReadFailure
        ``(row, source, reason)`` of each picture that cannot be read, in the order of the rows.

    Raises
    ------
    TypeError
        `images` is one picture, a mapping or a set, or can be read once only.
    ValueError
        There are no images, or Pillow cannot open a format of `extra_formats`.

    See Also
    --------
    sklearn_mm.features.FullNetworkEmbedding : Its `on_error` leaves out or marks what cannot be read.
    sklearn_mm.model_selection.find_leaks : What training and test data must not share.

    Notes
    -----
    Nothing is kept of a picture: the memory is that of a few. A folder of a Mac, or of an archive made on one, holds a
    "._photo.jpg" beside each "photo.jpg", which is no picture.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.features import find_unreadable
    >>> pictures = [np.zeros((8, 8, 3), dtype=np.uint8), "missing.jpg", b"no picture"]
    >>> captions = ["a black square", "a dog", "a cat"]
    >>> unreadable = find_unreadable(pictures)
    >>> [(row, reason.split(",")[0]) for row, source, reason in unreadable]
    [(1, 'no such file'), (2, 'not a picture')]
    >>> kept = sorted(set(range(3)) - {failure.row for failure in unreadable})
    >>> pictures, captions = [pictures[row] for row in kept], [captions[row] for row in kept]
    >>> captions
    ['a black square']
    """
    check_formats(extra_formats)
    reader = PictureReader(_SIDE, _SIDE, extra_formats=tuple(extra_formats))
    pictures = Pictures(images)

    def attempt(source: Any) -> None:
        if decode:
            reader.decode(source)
        else:
            reader.check(source)

    answers = read_ahead(attempt, pictures, range(len(pictures)), n_threads(n_jobs), _AHEAD)
    with tqdm(total=len(pictures), desc="pictures", unit="picture", disable=not verbose) as bar:
        found = []
        for _, answer in answers:
            bar.update()
            if isinstance(answer, ReadFailure):
                found.append(answer)
    return found
