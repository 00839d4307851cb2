"""Between two forms of captioned images: a row per image, a row per caption."""

from typing import Any

import numpy as np
from sklearn.utils import _safe_indexing

from sklearn_mm._checks import check_captions
from sklearn_mm._tables import with_length
from sklearn_mm.model_selection._identity import image_keys

__all__ = ["explode_captions", "group_captions"]


def group_captions(X: Any, y: Any) -> tuple[Any, list[list[str]]]:
    """Gather the captions of each image: from a row per caption to one per image.

    In this form a plain `KFold` cannot put captions of one image on both sides of a split.

    Parameters
    ----------
    X : sequence of length n_rows
        The image of each caption, repeated from row to row: paths, ids, PIL images, arrays or features.
        Paths and ids are the same image if they are equal, pictures if their pixels are. What is missing is an image
        of its own.
    y : sequence of str, length n_rows
        The captions. A list of str in a row counts as several, and so do several columns of a frame.

    Returns
    -------
    X_images : sequence of length n_images
        The different images, in the order of their first rows, in a container like X.
    y_nested : list of list of str, length n_images
        The captions of each, in the order of their rows.

    Raises
    ------
    ValueError
        X and y differ in length, or a caption is empty.
    TypeError
        A caption is no str, or X or y is a mapping, a set or an open file.

    See Also
    --------
    explode_captions : The other way.

    Notes
    -----
    Files are not read: two paths are two images. `find_leaks` compares the contents of files.

    Examples
    --------
    >>> from sklearn_mm.model_selection import group_captions
    >>> group_captions(["1.jpg", "2.jpg", "1.jpg"], ["a dog", "a cat", "it barks"])
    (['1.jpg', '2.jpg'], [['a dog', 'it barks'], ['a cat']])
    """
    X = with_length(X)
    captions = check_captions(y, X)
    places: dict[Any, int] = {}
    first_rows: list[int] = []
    image_of_row = []
    for row, key in enumerate(image_keys(X, read_files=False)):
        if key not in places:
            places[key] = len(first_rows)
            first_rows.append(row)
        image_of_row.append(places[key])
    nested: list[list[str]] = [[] for _ in first_rows]
    for text, row in zip(captions.texts, captions.image_index, strict=True):
        nested[image_of_row[row]].append(text)
    # scikit-learn's own indexing: a list stays a list, a frame a frame.
    return _safe_indexing(X, first_rows), nested


def explode_captions(X: Any, y: Any) -> tuple[Any, list[str], np.ndarray]:
    """Repeat each image for each caption: from a row per image to one per caption.

    Parameters
    ----------
    X : sequence of length n_images
        Images in any form. An array is copied once per caption; a list repeats references.
    y : sequence of (str or sequence of str), length n_images
        The captions of each image.

    Returns
    -------
    X_rows : sequence of length n_captions
        The image of each caption, in a container like X.
    y_rows : list of str, length n_captions
        The captions.
    groups : ndarray of shape (n_captions,), int64
        The row that the image had in X. Split this form by `GroupKFold` or `GroupShuffleSplit` only, with
        these groups: any other splitter puts captions of one image on both sides.

    Raises
    ------
    ValueError
        X and y differ in length, an image has no captions, or a caption is empty.
    TypeError
        An entry of y is neither a str nor a sequence of str, or X or y is a mapping, a set or an open file.

    See Also
    --------
    group_captions : The other way.

    Examples
    --------
    >>> from sklearn_mm.model_selection import explode_captions
    >>> explode_captions(["1.jpg", "2.jpg"], [["a dog", "it barks"], "a cat"])
    (['1.jpg', '1.jpg', '2.jpg'], ['a dog', 'it barks', 'a cat'], array([0, 0, 1]))
    """
    X = with_length(X)
    captions = check_captions(y, X)
    return _safe_indexing(X, captions.image_index), captions.texts, captions.image_index
