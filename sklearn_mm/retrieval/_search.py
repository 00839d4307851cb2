"""What a fitted joint space answers: embeddings, and the images and texts nearest to them."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import Captions, check_features, check_texts
from sklearn_mm._device import resolve_device, resolve_dtype, torch_threads
from sklearn_mm._unicode import normal_form
from sklearn_mm._unreadable import n_pictures_of, refuse_unreadable, take_readable
from sklearn_mm.images import check_sequence
from sklearn_mm.metrics import RetrievalScorer
from sklearn_mm.retrieval._data import distinct_texts
from sklearn_mm.retrieval._gallery import Gallery
from sklearn_mm.retrieval._model import is_positive_only
from sklearn_mm.towers import Tower

__all__ = ["JointSpaceMixin"]


class JointSpaceMixin(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """An estimator with a tower for images and one for texts: it embeds and searches.

    It has the parameters `image_encoder`, `similarity`, `device`, `precision` and `n_jobs`; its `fit` leaves encoders
    and heads, and calls `_set_training_gallery`.
    """

    image_encoder_: Any
    text_encoder_: Any
    image_head_: torch.nn.Module
    text_head_: torch.nn.Module

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_images, n_features), or images for `image_encoder`

        Returns
        -------
        ndarray of shape (n_images, n_components), float32
            Unit vectors.
        """
        check_is_fitted(self, "image_head_")
        return self._embed(self._image_tower(), self._check_images(X, reset=False))

    def transform_text(self, texts: Any) -> np.ndarray:
        """Embed texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts
            A text without one known word is embedded as unknown, with an `UnknownWordsWarning`.

        Returns
        -------
        ndarray of shape (n_texts, n_components), float32
            Unit vectors.
        """
        check_is_fitted(self, "image_head_")
        return self._embed(self._text_tower(), check_texts(texts))

    def _embed(self, tower: Tower, data: Any) -> np.ndarray:
        with torch_threads(self.n_jobs):
            return self._embed_rows(tower, tower.prepare(data))

    def _embed_rows(self, tower: Tower, rows: Any) -> np.ndarray:
        with torch_threads(self.n_jobs):
            return tower.embed(rows)

    def _check_images(self, X: Any, *, reset: bool) -> Any:
        """Check X where it is a matrix of features: int8 stays, anything else becomes float32."""
        if self.image_encoder is not None:
            check_sequence(X)
            return X
        refuse_unreadable(X)
        return check_features(self, X, reset=reset)

    def set_gallery(self, images: Any = None, texts: Any = None) -> Self:
        """Replace what is searched, without training; None leaves that side as it is.

        Parameters
        ----------
        images : as X in `fit`, optional
            Pictures that cannot be read are left out if the encoder's `on_error` says so: they are never found, and the
            others keep their numbers.
        texts : sequence of str, optional
            Kept in the order given, equal texts included.

        Returns
        -------
        self
        """
        check_is_fitted(self, "image_head_")
        if images is not None:
            self._image_gallery = self._gallery_of(images)
        if texts is not None:
            listed = check_texts(texts)
            self._text_gallery = Gallery(self.transform_text(listed), self.similarity)
            self.gallery_texts_ = np.array(listed, dtype=object)
        return self

    def _gallery_of(self, images: Any) -> Gallery:
        """Embed images to be searched, without those that an encoder's `on_error` leaves out."""
        given, place = take_readable(images)
        tower = self._image_tower()
        with torch_threads(self.n_jobs):
            rows, kept = tower.prepare_readable(self._check_images(given, reset=False))
            kept = kept if place is None else place
            return Gallery(tower.embed(rows), self.similarity, None if len(kept) == n_pictures_of(images) else kept)

    def _set_training_gallery(
        self, rows: Any, captions: Captions, texts: list[str], text_rows: Any, image_rows: np.ndarray | None = None
    ) -> Self:
        """Make prepared images and the different captions the galleries; of `texts` there are prepared rows.

        `image_rows` says where the images stood in X, if not all of them could be read.
        """
        # Numbers are no captions, but what scikit-learn's own checks pass as y. predict answers in their dtype.
        if captions.numbers is not None:
            self.gallery_texts_ = np.unique(captions.numbers)
        else:
            self.gallery_texts_ = np.array(distinct_texts(captions.texts), dtype=object)
        wanted = [str(text) for text in self.gallery_texts_.tolist()]
        # Rows held out and rows of weight 0 have captions that are not among the texts trained on; they are in the
        # gallery all the same.
        row_of = {normal_form(text): row for row, text in enumerate(texts)} | {
            text: row for row, text in enumerate(texts)
        }
        rows_of = [row_of.get(text, row_of.get(normal_form(text))) for text in wanted]
        if None not in rows_of:  # a frozen encoder may have taken long for them
            embedding = self._embed_rows(self._text_tower(), text_rows[np.array(rows_of)])
        else:
            embedding = self._embed(self._text_tower(), wanted)
        self._text_gallery = Gallery(embedding, self.similarity)
        # All rows of X, those that were one image in training too: an index of a result is a row of X.
        self._image_gallery = Gallery(self._embed_rows(self._image_tower(), rows), self.similarity, image_rows)
        return self

    def search_images(self, texts: Any, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the gallery's images for texts.

        Parameters
        ----------
        texts : sequence of str, length n_texts
        k : int, optional
            By default 10, or all where the gallery has fewer.

        Returns
        -------
        scores : ndarray of shape (n_texts, k), float32
            The highest first.
        indices : ndarray of shape (n_texts, k), int64
            Rows of the image gallery: after `fit`, of its X.
        """
        check_is_fitted(self, "image_head_")
        return self._image_gallery.search(self.transform_text(texts), k, query_is_image=False)

    def search_texts(self, X: Any, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the gallery's texts for images.

        Parameters
        ----------
        X : as in `transform`, n_images rows
        k : int, optional
            By default 10, or all where the gallery has fewer.

        Returns
        -------
        scores : ndarray of shape (n_images, k), float32
            The highest first.
        indices : ndarray of shape (n_images, k), int64
            Positions in `gallery_texts_`.
        """
        check_is_fitted(self, "image_head_")
        return self._text_gallery.search(self.transform(X), k, query_is_image=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the best text of the gallery for each image, shape (n_images,), in the dtype of `gallery_texts_`."""
        check_is_fitted(self, "image_head_")
        return self.gallery_texts_[self.search_texts(X, 1)[1][:, 0]]

    def decision_function(self, X: Any) -> np.ndarray:
        """Score every text of the gallery for each image: shape (n_images, n_gallery_texts), float32."""
        check_is_fitted(self, "image_head_")
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
        check_is_fitted(self, "image_head_")
        refuse_unreadable(X)  # before it is compared with captions of all pictures
        report = RetrievalScorer()(self, X, y, sample_weight=sample_weight, groups=groups)
        return float(report["rsum"]) / 600  # six recalls in percent

    def _image_tower(self) -> Tower:
        return self._tower(self.image_encoder_, self.image_head_)

    def _text_tower(self) -> Tower:
        return self._tower(self.text_encoder_, self.text_head_)

    def _tower(self, encoder: Any, head: torch.nn.Module) -> Tower:
        # Built for each call, by the parameters as they are now; the modules inside are the fitted ones, not copies.
        device = resolve_device(self.device)
        dtype = resolve_dtype(self.precision, device, self._fitted_precision())
        return Tower(encoder, head, device, dtype, is_positive_only(self.similarity))

    def _fitted_precision(self) -> str | None:
        """Return the precision of `fit`; None for a model saved before it was noted."""
        return getattr(self, "precision_", None)
