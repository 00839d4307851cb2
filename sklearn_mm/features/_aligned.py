"""Layers chosen by how far a picture's neighbours in them are its neighbours in the text."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from sklearn_mm._checks import Captions

__all__ = ["agreeing_layers", "sample_rows"]

_N_ROWS = 1000  # pictures that are compared: of as many the order of layers is that of all
_N_NEIGHBOURS = 10
_N_COMPONENTS = 100  # of the texts' vectors
_SHARE = 0.7  # of the best layer's agreement, beyond chance, which a layer must have


def sample_rows(n_rows: int) -> np.ndarray:
    """Return the rows that are compared, spread evenly over all: (n_sampled,) int64, increasing."""
    return np.unique(np.linspace(0, n_rows - 1, min(n_rows, _N_ROWS)).round().astype(np.int64))


def agreeing_layers(
    activations: np.ndarray, rows: np.ndarray, layers: Sequence[tuple[str, int]], captions: Captions
) -> np.ndarray:
    """Return which of the layers agree with the text.

    Parameters
    ----------
    activations : ndarray of shape (n_sampled, d), float32
        Standardised.
    rows : ndarray of shape (n_sampled,), int64
        The images that they are of.
    layers : sequence of (str, int)
        Name and width, in the order of the columns.
    captions : Captions
        Of all images.

    Returns
    -------
    ndarray of shape (n_layers,), bool
        All of them where none agrees beyond chance, as with three pictures or fewer.

    Notes
    -----
    The agreement of a layer is the share of a picture's nearest neighbours in it, by cosine, that are among its nearest
    neighbours by the text: tf-idf of the words, reduced, averaged over a picture's captions. Costs a product of
    n_sampled x n_sampled x width for each layer.
    """
    if len(rows) < 3:
        return np.ones(len(layers), dtype=bool)
    of_text = _neighbours(_text_vectors(captions)[rows])
    n_neighbours = int(of_text[0].sum())
    bounds = np.cumsum([0, *(width for _, width in layers)])
    shares = np.array(
        [(_neighbours(activations[:, start:stop]) & of_text).sum() / of_text.sum() for start, stop in pairwise(bounds)]
    )
    beyond_chance = shares - n_neighbours / (len(rows) - 1)
    agrees: np.ndarray = beyond_chance >= _SHARE * max(beyond_chance.max(), 0)
    return agrees if agrees.any() else ~agrees


def _text_vectors(captions: Captions) -> np.ndarray:
    """Return a vector for each image, (n_images, n_components) of length 1, or 0 where no word of it is known."""
    # loads all linear models, which takes longer than the whole of this package
    from sklearn.decomposition import TruncatedSVD

    # one-letter words and signs too, so that no set of captions is without any
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\b\w+\b|\S").fit_transform(captions.texts)
    is_wide = words.shape[1] > _N_COMPONENTS
    vectors = TruncatedSVD(_N_COMPONENTS, random_state=0).fit_transform(words) if is_wide else words.toarray()
    sums = np.zeros((captions.n_images, vectors.shape[1]))
    np.add.at(sums, captions.image_index, vectors)
    # a mean and a sum have the same direction
    return np.asarray(normalize(sums))


def _neighbours(vectors: np.ndarray) -> np.ndarray:
    """Return which rows are the nearest of each, (n, n) bool, with as many in each row; ties go to the earlier row."""
    unit = normalize(vectors)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    n_neighbours = min(_N_NEIGHBOURS, len(scores) - 1)
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :n_neighbours]
    mask = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(mask, nearest, True, axis=1)
    return mask
