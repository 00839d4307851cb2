"""Rankers as members of an ensemble: how one is told apart, fitted, and asked for embeddings."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from sklearn_mm._unicode import normal_form
from sklearn_mm._unreadable import take_readable
from sklearn_mm.metrics import unwrap_ranker
from sklearn_mm.retrieval._gallery import Gallery
from sklearn_mm.retrieval._search import JointSpaceMixin

__all__ = [
    "FittedMember",
    "check_member",
    "embed_images",
    "embed_readable",
    "embed_texts",
    "fit_member",
    "seeded",
]


@dataclass(frozen=True)
class FittedMember:
    """A member, and what it was fitted on in its space.

    Attributes
    ----------
    ranker : estimator
    images : ndarray of shape (n_kept, n_components), float32
    rows : ndarray of shape (n_kept,), int64, or None
        Where the images stood in X, if not all of them could be read.
    listed : list of str
        The different captions of these images.
    texts : ndarray of shape (n_texts, n_components), float32
    """

    ranker: Any
    images: np.ndarray
    rows: np.ndarray | None
    listed: list[str]
    texts: np.ndarray

    def take(self, rows: np.ndarray | None, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the embeddings of some rows of X (None for all) and of some captions, which it has embedded all."""
        images = self.images
        if rows is not None:
            images = images[rows if self.rows is None else np.searchsorted(self.rows, rows)]
        if texts == self.listed:
            return images, self.texts
        row_of = {normal_form(text): row for row, text in enumerate(self.listed)}
        return images, self.texts[[row_of[normal_form(text)] for text in texts]]


def check_member(name: str, member: Any) -> None:
    """Check that an estimator, fitted or not, embeds images and texts to be compared by their cosine.

    Raises
    ------
    TypeError
        It is no estimator of images and texts, or a class.
    ValueError
        It compares otherwise.
    """
    expected = "expected a ranker, with transform and transform_text, or a pipeline or a search that ends in one"
    if isinstance(member, type):
        raise TypeError(f"{expected}, as the member {name!r}, got the class {member.__name__}; call it")
    inner = member
    while not hasattr(inner, "transform_text"):
        if hasattr(inner, "steps"):
            inner = inner.steps[-1][1]
        elif hasattr(inner, "estimator"):
            inner = getattr(inner, "best_estimator_", inner.estimator)
        else:
            raise TypeError(f"{expected}, as the member {name!r}, got {type(member).__name__}")
    similarity = getattr(inner, "similarity", "cosine")
    if similarity != "cosine":
        raise ValueError(
            f"the member {name!r} compares by similarity={similarity!r}; an ensemble adds cosines, and others are no "
            "inner products of unit vectors: set similarity='cosine'"
        )


def seeded(member: Any, random_state: np.random.RandomState, *, anew: bool) -> Any:
    """Give each `random_state` of None in an unfitted member a seed; with `anew`, each other one too."""
    parameters = member.get_params()
    names = [name for name in sorted(parameters) if name.split("__")[-1] == "random_state"]
    seed = {name: random_state.randint(2**31 - 1) for name in names if anew or parameters[name] is None}
    return member.set_params(**seed)


# Fitting --------------------------------------------------------------------------------------------------------


def fit_member(
    name: str, member: Any, method: str, X: Any, y: Any, metadata: dict[str, Any], texts: list[str]
) -> FittedMember:
    """Fit a member by `fit` or `partial_fit`, and embed X and the different captions.

    Parameters
    ----------
    name : str
    member : estimator
        It is changed.
    method : {"fit", "partial_fit"}
    X, y
        As in `fit` of a ranker.
    metadata : dict
        ``sample_weight`` and ``groups``, as far as they are given.
    texts : list of str
        The different captions, as a ranker lists them after `fit`.
    """
    getattr(member, method)(X, y, **_taken_metadata(name, member, method, metadata))
    check_member(name, member)  # a search may have chosen another similarity
    ranker = unwrap_ranker(member)
    if not isinstance(ranker, JointSpaceMixin):
        return FittedMember(member, embed_images(member, X), None, texts, embed_texts(member, texts))
    # What it was fitted on is embedded already: a frozen encoder may have taken long for it.
    listed = [str(text) for text in ranker.gallery_texts_]
    fitted = FittedMember(
        member, ranker._image_gallery.embedding, ranker._image_gallery.rows, listed, ranker._text_gallery.embedding
    )
    # Two copies of the training data, its own and the ensemble's, would be one too many.
    ranker.gallery_texts_ = ranker.gallery_texts_[:0]
    ranker._image_gallery = Gallery(fitted.images[:0].copy(), ranker.similarity, holds_images=True)
    ranker._text_gallery = Gallery(fitted.texts[:0].copy(), ranker.similarity)
    return fitted


def _taken_metadata(name: str, member: Any, method: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what of the metadata a member is to be given, under the names that its `fit` wants.

    With metadata routing on, a member that was told that it does not want something is not given it.
    """
    is_pipeline = hasattr(member, "steps")
    last = member.steps[-1][1] if is_pipeline else member
    taken = {}
    for key, value in metadata.items():
        if not has_fit_parameter(last, key):
            raise TypeError(
                f"{key} was given, which the member {name!r}, a {type(last).__name__}, does not take; leave the member "
                f"or {key} out (weights='auto' holds images out by a sample_weight of 0)"
            )
        if not get_config()["enable_metadata_routing"]:
            taken[f"{member.steps[-1][0]}__{key}" if is_pipeline else key] = value
            continue
        request = getattr(get_routing_for_object(last), method).requests.get(key)
        if request is not False:
            # A pipeline routes itself, by the name that its step has asked for; of None it says what is missing.
            taken[request if is_pipeline and isinstance(request, str) else key] = value
    return taken


# Embedding ------------------------------------------------------------------------------------------------------


def embed_images(member: Any, X: Any) -> np.ndarray:
    """Embed images by a fitted member, (n_images, n_components) float32."""
    return _as_embedding(member.transform(X), member)


def embed_texts(member: Any, texts: list[str]) -> np.ndarray:
    """Embed texts by a fitted member, (n_texts, n_components) float32."""
    return _as_embedding(unwrap_ranker(member).transform_text(texts), member)


def embed_readable(member: Any, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Embed images without those that the member's encoders cannot read and leave out.

    Returns
    -------
    embedding : ndarray of shape (n_kept, n_components), float32
    rows : ndarray of shape (n_kept,), int64, or None
        Where each stood among the images; None, where none is left out.
    """
    if isinstance(member, JointSpaceMixin):
        return member._embed_readable(images)
    if hasattr(member, "steps"):
        for _, step in member.steps[:-1]:
            if step is not None and step != "passthrough":
                images = step.transform(images)
        return embed_readable(member.steps[-1][1], images)
    if hasattr(member, "best_estimator_"):
        return embed_readable(member.best_estimator_, images)
    readable, kept = take_readable(images)
    return embed_images(member, readable), kept


def _as_embedding(embedding: Any, member: Any) -> np.ndarray:
    # A member may have been told to answer with a frame.
    answer = np.asarray(embedding, dtype=np.float32)
    if answer.ndim != 2:
        raise ValueError(f"expected a vector for each row from {type(member).__name__}, got the shape {answer.shape}")
    return answer
