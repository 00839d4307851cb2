"""Exact ranks of the right answers among all items of the gallery."""

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import numpy as np

from sklearn_mm._checks import check_groups
from sklearn_mm._tables import as_column
from sklearn_mm.metrics._counting import NO_OFFSETS, Offsets, Thresholds, count_gallery
from sklearn_mm.metrics._equal_texts import EqualTexts, find_equal_texts
from sklearn_mm.metrics._ranks import PositiveRanks, RetrievalRanks
from sklearn_mm.metrics._similarity import Similarity, check_embedding, resolve_similarity

__all__ = ["check_offsets", "check_retrieval_input", "check_wording", "rank_directions", "retrieval_ranks"]


def retrieval_ranks(
    image_embedding: Any,
    text_embedding: Any,
    text_to_image: Any,
    *,
    direction: str = "i2t",
    similarity: str = "cosine",
    every_positive: bool = False,
    groups: Any = None,
    wording: Any = None,
    image_offset: Any = None,
    text_offset: Any = None,
) -> RetrievalRanks:
    """Rank the right answers of every query among all items of the gallery.

    Parameters
    ----------
    image_embedding : array-like of shape (n_images, n_components)
        Embedded images; computed with in float32. They need not have unit length.
    text_embedding : array-like of shape (n_texts, n_components)
        Embedded texts.
    text_to_image : array-like of shape (n_texts,), int
        ``text_to_image[j]`` is the row of the image that text j describes, in any order. Every image needs
        at least one text.
    direction : {"i2t", "t2i"}, default="i2t"
        Whether the images are the queries and the texts the gallery, or the other way round.
    similarity : {"cosine", "order", "order-root"}, default="cosine"
        "order" is ``-sum(max(0, text - image) ** 2)`` [1]_, the caption above the image, in both directions.
        Embeddings are taken as they are for it, and scaled to unit length for "cosine", where a zero vector
        scores 0 with everything.
    every_positive : bool, default=False
        Find the place of every positive, not of the best alone, as `recall_at_k` needs it. It makes a
        difference for "i2t" only: a text has one image, but for texts of one `wording`.
    groups : array-like of shape (n_images,), optional
        Images of one group (near-duplicates, pictures of one scene) and their texts are no negatives of
        each other. They are no positives either: they are left out of the gallery, query by query.
    wording : array-like of shape (n_texts,), optional
        The texts themselves, or anything that is equal for texts of one wording. Every text of a wording is then
        right for every image that has one of them, in its group or not, and the embedding of the first stands for
        all. None: a text is right for its own image alone, as in papers; a perfect model then finds the right one
        of equal texts by chance.
    image_offset : array-like of shape (n_images,), optional
        What is taken off the score of each image wherever it is one of the items found, of `similarity` "cosine": how
        near it is to any query, as `NearestNeighborNormalization.image_offsets` has it.
    text_offset : array-like of shape (n_texts,), optional
        The same for texts.

    Returns
    -------
    RetrievalRanks
        One entry a query; ``np.asarray`` of it are expected ranks, 0 is best.

    Raises
    ------
    ValueError
        Shapes do not fit together, an embedding holds NaN or infinity, an image has no text or a missing group,
        `text_to_image` points outside the images, or a parameter is not one of its options.

    See Also
    --------
    retrieval_report : The published numbers, both directions from one pass over the scores.

    Notes
    -----
    Costs one product of the two embeddings, in blocks, and a few comparisons per score, all in as many threads as
    BLAS and torch have been given. Memory beyond a copy of the embeddings is a block of scores for each thread, 5 MB,
    and 128 MB for all together. "order" is no product: it takes some thirty times as
    long (a minute and more for 5,000 images, 25,000 texts and 1,024 components).

    Ties are not broken but counted, so a model that answers every query alike scores as chance does. Scores
    within 1.9e-6 (16 units in the last place of a float32 near 1; times the squared length of the positive's
    text for "order") of the best positive's count as tied with it: the same sentence embedded in two batches
    differs that little. The outcome is that of float64 arithmetic on the float32 embeddings: equal
    embeddings always tie, whatever the block, the order of rows or the BLAS.

    References
    ----------
    .. [1] I. Vendrov, R. Kiros, S. Fidler, R. Urtasun, "Order-Embeddings of Images and Language", ICLR 2016,
       equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.metrics import retrieval_ranks
    >>> images = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> texts = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]])
    >>> np.asarray(retrieval_ranks(images, texts, [0, 0, 1], direction="t2i"))
    array([0., 1., 0.])
    >>> np.asarray(retrieval_ranks(images, texts, [0, 0, 1], direction="i2t"))
    array([0., 0.])
    """
    if direction not in ("i2t", "t2i"):
        raise ValueError(f"direction must be 'i2t' or 't2i', got {direction!r}")
    image, text, owner, label = check_retrieval_input(image_embedding, text_embedding, text_to_image, groups)
    same = check_wording(wording, len(text))
    offsets = check_offsets(image_offset, text_offset, len(image), len(text), similarity)
    return rank_directions(image, text, owner, label, similarity, {direction}, every_positive, same, offsets)[direction]


def check_offsets(image_offset: Any, text_offset: Any, n_images: int, n_texts: int, similarity: str) -> Offsets:
    """Return what is taken off the scores of images and texts, if it fits."""
    if similarity != "cosine" and not (image_offset is None and text_offset is None):
        raise ValueError(f"image_offset and text_offset are taken off cosines, got similarity={similarity!r}")
    return Offsets(_check_offset(image_offset, n_images, "image"), _check_offset(text_offset, n_texts, "text"))


def _check_offset(offset: Any, n_items: int, what: str) -> np.ndarray | None:
    if offset is None:
        return None
    array = np.asarray(offset, dtype=np.float32)
    if array.shape != (n_items,) or not np.isfinite(array).all():
        raise ValueError(
            f"{what}_offset must hold one finite number for each of the {n_items} {what}s, got shape {array.shape}"
        )
    return array


def check_retrieval_input(
    image_embedding: Any, text_embedding: Any, text_to_image: Any, groups: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return embeddings (float32), text_to_image (int64) and groups, if they fit."""
    image = check_embedding(image_embedding, "image_embedding")
    text = check_embedding(text_embedding, "text_embedding")
    if image.shape[1] != text.shape[1]:
        raise ValueError(
            "images and texts must be embedded in one space, got image_embedding of "
            f"{image.shape[1]} components and text_embedding of {text.shape[1]}"
        )
    plain = isinstance(text_to_image, np.ndarray)
    owner = text_to_image if plain else np.asarray(as_column(text_to_image, "text_to_image"))
    if owner.shape != (len(text),) or not np.issubdtype(owner.dtype, np.integer):
        raise ValueError(
            f"text_to_image must hold one int for each of the {len(text)} texts, "
            f"got shape {owner.shape} of dtype {owner.dtype}"
        )
    outside = np.flatnonzero((owner < 0) | (owner >= len(image)))
    if outside.size:
        raise ValueError(
            f"text_to_image must name rows of the {len(image)} images, got {owner[outside[0]]} for text {outside[0]}"
        )
    without = np.flatnonzero(np.bincount(owner, minlength=len(image)) == 0)
    if without.size:
        raise ValueError(
            f"every image needs at least one text, but text_to_image never names image {without[0]} "
            f"nor {without.size - 1} other images; leave them out of image_embedding"
        )
    return image, text, owner.astype(np.int64), check_groups(groups, len(image))


def check_wording(wording: Any, n_texts: int) -> np.ndarray | None:
    """Return what is equal for texts of one wording as an array of shape (n_texts,), or None."""
    if wording is None:
        return None
    # dtype=object: an array of str is as wide as its longest text, for every text
    array = np.empty(len(wording), dtype=object) if isinstance(wording, list | tuple) else np.asarray(wording)
    if isinstance(wording, list | tuple):
        array[:] = wording
    if array.shape != (n_texts,):
        raise ValueError(f"wording must hold one entry for each of the {n_texts} texts, got shape {array.shape}")
    return array


def rank_directions(
    image: np.ndarray,
    text: np.ndarray,
    owner: np.ndarray,
    groups: np.ndarray | None,
    similarity: str,
    directions: Collection[str],
    every_positive: bool,
    wording: np.ndarray | None = None,
    offsets: Offsets = NO_OFFSETS,
) -> dict[str, RetrievalRanks]:
    """Return the ranks of checked input by direction, from one pass over the scores."""
    label = np.arange(len(image)) if groups is None else np.unique(groups, return_inverse=True)[1]
    image_order, text_order, ignored = _order_by_group(owner, label)
    # From here on rows are in that order: the texts of a group, and in it those of an image, are neighbours.
    position = np.argsort(image_order)
    group = label[owner[text_order]]
    owner = position[owner[text_order]]  # never decreasing
    equal = None if wording is None else find_equal_texts(wording[text_order], owner, group)
    text = _reorder(text, text_order)
    scores = resolve_similarity(
        similarity, _reorder(image, image_order), text if equal is None else equal.embed_alike(text)
    )
    offsets = offsets.take(image_order, text_order if equal is None else text_order[equal.stands_for()])
    cosine = scores.exact(owner, np.arange(len(text)))  # the score of each text with its own image
    # The text as an answer to the image, and the image as an answer to the text: without offsets they are one.
    positive, found = offsets.off_texts(cosine, np.arange(len(text))), offsets.off_images(cosine, owner)
    start = np.searchsorted(owner, np.arange(len(image)))  # (n_images,)
    # Every image has a text, as was checked: of an empty run reduceat gives the element behind it.
    best = np.maximum.reduceat(positive, start)
    best_text = np.flatnonzero(positive == best[owner])  # all that are as good; the next line keeps the first
    best_text = best_text[np.searchsorted(owner[best_text], np.arange(len(image)))]
    # The score of each text with the best image that is right for it: its own, unless others have its wording.
    best_image = found if equal is None else equal.best_images(found)

    asked = np.arange(len(text)) if every_positive else best_text
    i2t = Thresholds.around(owner[asked], positive[asked], scores.tie_tolerance[asked], scores, offsets.text)
    t2i = Thresholds.around(np.arange(len(text)), best_image, scores.tie_tolerance, scores, offsets.image)
    count_gallery(scores, ignored, i2t if "i2t" in directions else None, t2i if "t2i" in directions else None, offsets)

    ranks = {}
    if "i2t" in directions:
        tolerance = scores.tie_tolerance[best_text]
        # Positives within the tolerance are tied as negatives are: hit_probability draws from both.
        tied = positive >= (best - tolerance)[owner]
        of_best = np.searchsorted(asked, best_text)
        n_tied, n_tied_positives = i2t.n_tied[of_best], np.add.reduceat(tied.astype(np.int64), start)
        if equal is not None:
            n_right, n_miscounted = equal.right_texts(positive, best, tolerance)
            # Not below 0: a score at the very edge of the tolerance may have been counted on its other side.
            n_tied, n_tied_positives = np.maximum(n_tied - n_miscounted, 0), n_tied_positives + n_right
        ranks["i2t"] = RetrievalRanks(
            n_better=i2t.n_better[of_best][position],
            n_tied=n_tied[position],
            n_tied_positives=n_tied_positives[position],
            positives=_place_positives(i2t, positive, image_order, equal) if every_positive else None,
        )
    if "t2i" in directions:
        back = np.argsort(text_order)
        n_better, n_tied, n_right = t2i.n_better, t2i.n_tied, np.ones(len(text), dtype=np.int64)
        places = None
        if equal is not None:
            n_right, n_miscounted = equal.right_images(found, best_image, scores.tie_tolerance)
            n_tied = np.maximum(n_tied - n_miscounted, 0)
            if every_positive:
                places = _place_images(scores, ignored, found, equal, back, offsets)
        n_better, n_tied, n_right = n_better[back], n_tied[back], n_right[back]
        if places is None:
            places = PositiveRanks(np.arange(len(text)), n_better, n_tied + 1)  # itself
        ranks["t2i"] = RetrievalRanks(n_better, n_tied, n_right, places)
    return ranks


def _order_by_group(
    owner: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Sort images and texts by the label of the group; say which texts (start, stop) an image ignores."""
    # stable: images that are in order stay there, and are not copied.
    image_order = np.argsort(label, kind="stable")
    text_order = np.lexsort((owner, label[owner]))  # by the last key first
    text_label = label[owner[text_order]]
    image_label = label[image_order]
    return (
        image_order,
        text_order,
        (np.searchsorted(text_label, image_label), np.searchsorted(text_label, image_label, side="right")),
    )


def _reorder(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    in_order = np.array_equal(order, np.arange(len(order)))  # as data sets mostly are: spare the copy
    return rows if in_order else rows[order]


def _place_positives(
    queries: Thresholds, score: np.ndarray, image_order: np.ndarray, equal: EqualTexts | None
) -> PositiveRanks:
    """Add, to the negatives counted at each positive, the query's other positives."""
    n_better, n_tied = queries.n_better.copy(), queries.n_tied.copy()
    bounds = np.searchsorted(queries.row, np.arange(len(image_order) + 1))
    # The count left out a query's own texts, as they are no negatives; in the place of one positive the others do
    # count.
    for start, stop in pairwise(bounds):
        own = np.sort(score[start:stop])
        above = np.searchsorted(own, queries.high[start:stop], side="right")
        n_better[start:stop] += len(own) - above
        n_tied[start:stop] += above - np.searchsorted(own, queries.low[start:stop], side="left")
    query = image_order[queries.row]
    by_query = np.argsort(query, kind="stable")
    # Texts of other images that are equal to one of its own stand where that one does, and are counted there already.
    weight = None if equal is None else (equal.n_same / equal.n_own)[by_query]
    return PositiveRanks(query[by_query], n_better[by_query], n_tied[by_query], weight)


def _place_images(
    scores: Similarity,
    ignored: tuple[np.ndarray, np.ndarray],
    positive: np.ndarray,
    equal: EqualTexts,
    back: np.ndarray,
    offsets: Offsets,
) -> PositiveRanks:
    """Find the place of every image that is right for a wording; all texts of the wording share them."""
    own = Thresholds.around(np.arange(len(positive)), positive, scores.tie_tolerance, scores, offsets.image)
    # A pass of its own: the ranks of the best image were counted at another threshold.
    count_gallery(scores, ignored, None, own, offsets)
    pairs = np.flatnonzero(equal.is_first)
    pairs = pairs[np.argsort(equal.wording[pairs], kind="stable")]
    return PositiveRanks(
        equal.wording[pairs], own.n_better[pairs], own.n_tied[pairs] + 1, shared_by=equal.wording[back]
    )
