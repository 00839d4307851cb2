"""What a fitted joint space answers: embeddings, and the images and texts nearest to them."""

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import Captions, check_texts
from sklearn_mm._params import HasMethods, StrOptions, validate_params
from sklearn_mm._unicode import normal_form
from sklearn_mm._unreadable import refuse_unreadable
from sklearn_mm.exceptions import UnknownWordsWarning
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval._calibration import check_calibration, learn_cutoff
from sklearn_mm.retrieval._cutoff import Cutoff
from sklearn_mm.retrieval._data import CaptionedImages, distinct_texts
from sklearn_mm.retrieval._gallery import Gallery
from sklearn_mm.retrieval._hubness import NearestNeighborNormalization
from sklearn_mm.retrieval._known_words import looks_like_picture, words_unknown_to
from sklearn_mm.retrieval._pairs import distinct_pictures

__all__ = ["SEARCH_CONSTRAINTS", "JointSpaceMixin", "gallery_texts"]

_N_NAMED = 5  # unknown words in a warning

SEARCH_CONSTRAINTS: dict[str, Any] = {
    "hubness": [StrOptions({"auto", "nnn"}), NearestNeighborNormalization, None],
    "index": [HasMethods(["add", "search"]), None],
}


class JointSpaceMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """An estimator that embeds images by `transform` and texts by `transform_text`: it searches each by the other.

    It has the parameters of SEARCH_CONSTRAINTS, an attribute `similarity` and the method `_embed_readable`; its `fit`
    calls `_check_search_parameters`, `_set_hubness` and `_set_galleries`.
    """

    similarity: str
    hubness: Any
    index: Any
    hubness_: NearestNeighborNormalization | None
    _cutoff: Cutoff
    calibration_fraction: float | None = None  # of models saved before there was any

    _not_pickled: tuple[str, ...] = ("_told_words",)

    def transform_text(self, texts: Any) -> np.ndarray:
        """Embed texts: unit vectors, shape (n_texts, n_components), float32."""
        raise NotImplementedError

    def _embed_readable(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Embed images to be searched, without those that an encoder's `on_error` leaves out.

        Returns
        -------
        embedding : ndarray of shape (n_kept, n_components), float32
        rows : ndarray of shape (n_kept,), int64, or None
            Where each stood among the images; None, where none is left out.
        """
        raise NotImplementedError

    def set_gallery(self, images: Any = None, texts: Any = None) -> Self:
        """Replace what is searched, without training; None leaves that side as it is.

        Parameters
        ----------
        images : as X in `fit`, optional
            Pictures that cannot be read are left out if the encoder's `on_error` says so: they are never found, and the
            others keep their numbers. A picture that stands in several rows is one, and has the number of the first.
        texts : sequence of str, optional
            Kept in the order given, equal texts included.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        if images is not None:
            images, given = distinct_pictures(images, stacklevel=2)
            embedding, rows = self._embed_readable(images)
            if given is not None:
                rows = given if rows is None else given[rows]
            self._image_gallery = self._gallery(embedding, rows, holds_images=True)
        if texts is not None:
            listed = check_texts(texts)
            self._text_gallery = self._gallery(self.transform_text(listed))
            self.gallery_texts_ = np.array(listed, dtype=object)
        return self

    def _set_galleries(
        self, images: np.ndarray, image_rows: np.ndarray | None, listed: np.ndarray, texts: np.ndarray
    ) -> Self:
        """Make what was embedded the galleries.

        Parameters
        ----------
        images : ndarray of shape (n_images, n_components), float32
        image_rows : ndarray of shape (n_images,), int64, or None
            Where the images stood in X, if not all of them could be read.
        listed : ndarray of shape (n_texts,), object or a dtype of numbers
            The texts as `predict` answers them.
        texts : ndarray of shape (n_texts, n_components), float32
        """
        for name in ("_told_words", "_cutoff"):  # of another vocabulary, and another space
            self.__dict__.pop(name, None)
        self.gallery_texts_ = listed
        self._text_gallery = self._gallery(texts)
        self._image_gallery = self._gallery(images, image_rows, holds_images=True)
        return self

    def _set_hubness(
        self,
        images: np.ndarray,
        texts: np.ndarray,
        listed: list[str],
        trained: CaptionedImages,
        rng: np.random.Generator,
    ) -> None:
        """Draw the banks of the correction, if there is one, from what was trained on.

        Parameters
        ----------
        images : ndarray of shape (n_images, n_components), float32
            Of all rows of X; `trained` says which it is of.
        texts : ndarray of shape (n_texts, n_components), float32
        listed : list of str
            The texts of these, each wording once.
        trained : CaptionedImages
        rng : numpy.random.Generator
        """
        correction = self._hub_correction()
        if correction is not None:
            of_images, of_texts = correction.draw(len(trained), rng), correction.draw(len(trained.texts), rng)
            place = {normal_form(text): row for row, text in enumerate(listed)}
            places = [place[normal_form(trained.texts[row])] for row in of_texts]
            correction.fit(images[trained.rows[of_images]], texts[places])
        self.hubness_ = correction

    def _calibrate(self, captions: Captions, place: np.ndarray | None, is_held_out: np.ndarray | None) -> Self:
        """Learn of images held out, which are in the galleries by now, how many a sentence deserves.

        Parameters
        ----------
        captions : Captions
            Of the images of the gallery.
        place : ndarray of int64 or None
            Where these stood among all for which `is_held_out` is known.
        is_held_out : ndarray of bool, or None
            None learns nothing.
        """
        if is_held_out is not None:
            self._cutoff = learn_cutoff(self, captions, is_held_out if place is None else is_held_out[place])
        return self

    def _hub_correction(self) -> NearestNeighborNormalization | None:
        """Return the correction that the parameters ask for, not fitted."""
        if self.hubness is None or (self.hubness == "auto" and self.similarity != "cosine"):
            return None
        if self.similarity != "cosine":
            raise ValueError(
                f"hubness={self.hubness!r} corrects cosines, got similarity={self.similarity!r}; set hubness='auto' or "
                "None"
            )
        return NearestNeighborNormalization() if isinstance(self.hubness, str) else clone(self.hubness)

    def _check_search_parameters(self) -> None:
        """Refuse a correction or an index that no search could use, before any long work."""
        correction = self._hub_correction()
        if correction is not None:
            validate_params(correction)
        if self.index is not None and len(self.index):
            raise ValueError(f"index must hold no items, which come with the galleries, got {len(self.index)}")
        check_calibration(self)

    def _gallery(self, embedding: np.ndarray, rows: np.ndarray | None = None, *, holds_images: bool = False) -> Gallery:
        return Gallery(embedding, self.similarity, rows, self.hubness_, holds_images, self.index)

    def unknown_words(self, texts: Any) -> list[str]:
        """Return the words of texts that training has not seen: they have no say in what is found.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        list of str
            Each once, as the text encoder splits words. Empty where it knows pieces of words, or where that cannot be
            told (of an encoder of another library that is no vectorizer).
        """
        check_is_fitted(self)
        return words_unknown_to(getattr(self, "text_encoder_", None), check_texts(texts))

    def search_images(
        self, texts: Any, k: int | None = None, *, rows: Any = None, warn_unknown: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the gallery's images for texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts
        k : int, optional
            By default 10, or all where the gallery has fewer.
        rows : array-like of int or bool, optional
            Rows of the image gallery, or a mask of them: others are not found.
        warn_unknown : bool, default=True
            Whether to warn of words that training has not seen, of each once.

        Returns
        -------
        scores : ndarray of shape (n_texts, k), float32
            The highest first.
        indices : ndarray of shape (n_texts, k), int64
            Rows of the image gallery: after `fit`, of its X.

        Raises
        ------
        ValueError
            A text is the path of a picture.
        """
        check_is_fitted(self)
        listed = check_texts(texts)
        _refuse_pictures(listed)
        if warn_unknown:
            self._warn_of_unknown(listed, stacklevel=2)
        return self._image_gallery.search(self.transform_text(listed), k, query_is_image=False, rows=rows)

    def _warn_of_unknown(self, texts: list[str], stacklevel: int) -> None:
        told = self.__dict__.setdefault("_told_words", set())
        new = [word for word in self.unknown_words(texts) if word not in told]
        if new:
            told.update(new)
            shown = ", ".join(map(repr, new[:_N_NAMED])) + (f" and {len(new) - _N_NAMED} more" * (len(new) > _N_NAMED))
            warnings.warn(
                # Also told on the command line: `warn_unknown`, which keeps it quiet, is in the docstring of searches.
                f"not seen in training, and so of no effect on what is found: {shown}; say it in words of the captions",
                UnknownWordsWarning,
                stacklevel=stacklevel + 1,
            )

    def search_texts(self, X: Any, k: int | None = None, *, rows: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the gallery's texts for images.

        Parameters
        ----------
        X : as in `transform`, n_images rows
        k : int, optional
            By default 10, or all where the gallery has fewer.
        rows : array-like of int or bool, optional
            Positions in `gallery_texts_`, or a mask of them: others are not found.

        Returns
        -------
        scores : ndarray of shape (n_images, k), float32
            The highest first.
        indices : ndarray of shape (n_images, k), int64
            Positions in `gallery_texts_`.
        """
        check_is_fitted(self)
        return self._text_gallery.search(self.transform(X), k, query_is_image=True, rows=rows)

    def predict(self, X: Any) -> np.ndarray:
        """Return the best text of the gallery for each image, shape (n_images,), in the dtype of `gallery_texts_`."""
        check_is_fitted(self)
        return self.gallery_texts_[self._text_gallery.best(self.transform(X), query_is_image=True)]

    def decision_function(self, X: Any) -> np.ndarray:
        """Score every text of the gallery for each image: shape (n_images, n_gallery_texts), float32."""
        check_is_fitted(self)
        return self._text_gallery.scores(self.transform(X), query_is_image=True)

    @property
    def classes_(self) -> np.ndarray:
        """None there are: texts are found in a gallery, which is another one in each fold.

        `cross_val_predict` asks for them, after it has put numbers in the place of the captions.
        """
        raise AttributeError(
            f"{type(self).__name__} has no classes_: it chooses from gallery_texts_, which differ from fold to fold; "
            "ask cross_val_predict for method='transform' or 'predict', and decision_function of one fitted estimator"
        )

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """Return the mean of hit@1, hit@5 and hit@10 both ways, among the images and captions given.

        Captions of one wording are equally right for the images that have them; see `RetrievalScorer`.

        Parameters
        ----------
        X, y : as in `fit`
        sample_weight : array-like of shape (n_images,), optional
        groups : array-like of shape (n_images,), optional
            Accepted for metadata routing.

        Returns
        -------
        float
            Between 0 and 1.
        """
        check_is_fitted(self)
        refuse_unreadable(X)  # before it is compared with captions of all pictures
        report = RetrievalScorer()(self, X, y, sample_weight=sample_weight, groups=groups)
        return float(report["rsum"]) / 600  # six recalls in percent


def _refuse_pictures(texts: list[str]) -> None:
    """Check that what is to be looked for are sentences."""
    row = next((row for row, text in enumerate(texts) if looks_like_picture(text)), None)
    if row is not None:
        raise ValueError(
            f"expected sentences to search pictures by, got the path of a picture in row {row}: {texts[row]!r}; "
            "search_texts finds sentences for a picture, and sklearn_mm.retrieval.Gallery pictures that are like one"
        )


def gallery_texts(captions: Captions) -> np.ndarray:
    """Return the different captions, sorted, as what is searched after `fit`."""
    # Numbers are no captions, but what scikit-learn's own checks pass as y. predict answers in their dtype.
    if captions.numbers is not None:
        return np.unique(captions.numbers)
    return np.array(distinct_texts(captions.texts), dtype=object)
