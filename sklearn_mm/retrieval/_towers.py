"""Two towers, one for images and one for texts, as a fitted joint space embeds by them."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._checks import Captions, check_captions, check_features, check_groups, check_texts, check_weights
from sklearn_mm._device import resolve_device, resolve_dtype, torch_threads
from sklearn_mm._repeated import first_rows
from sklearn_mm._unicode import normal_form
from sklearn_mm._unreadable import n_pictures_of, refuse_unreadable, take_readable
from sklearn_mm.images import check_sequence
from sklearn_mm.retrieval._data import CaptionedImages, merge_captioned
from sklearn_mm.retrieval._model import is_positive_only
from sklearn_mm.retrieval._pairs import GivenRows
from sklearn_mm.retrieval._search import JointSpaceMixin, gallery_texts
from sklearn_mm.towers import (
    Tower,
    TrainableEncoder,
    TrainedRows,
    fit_image_encoder,
    is_trainable,
    n_rows_of,
    row_digests,
)

__all__ = ["TwoTowersMixin"]

_FOR_EXAMPLE = {"text_encoder": "TfidfVectorizer(min_df=2)", "image_encoder": "FullNetworkEmbedding(layers='last')"}


class TwoTowersMixin(JointSpaceMixin):
    """An estimator whose images and texts each pass an encoder and a head of torch into the joint space.

    It has the parameters `image_encoder`, `similarity`, `device`, `precision` and `n_jobs`; its `fit` leaves encoders
    and heads, and calls `_set_training_gallery`.
    """

    text_encoder: Any
    image_encoder: Any
    device: Any
    precision: str
    n_jobs: int | None
    image_encoder_: Any
    text_encoder_: Any
    image_head_: torch.nn.Module
    text_head_: torch.nn.Module

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "image_head_")

    def set_params(self, **params: Any) -> Self:
        """Set parameters, those of an encoder as ``text_encoder__parameter``.

        Raises
        ------
        ValueError
            There is no such parameter, or the encoder is None: the one that is taken then has none from here.
        """
        for name in ("text_encoder", "image_encoder"):
            nested = next((key for key in params if key.startswith(f"{name}__")), None)
            if nested is not None and params.get(name, getattr(self, name)) is None:
                raise ValueError(
                    f"{nested} cannot be set: {name} is None, the default, which has no parameters; set an encoder "
                    f"and with it its parameters, {name}={_FOR_EXAMPLE[name]}"
                )
        return super().set_params(**params)

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
        check_is_fitted(self)
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
        check_is_fitted(self)
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

    def _check_training_data(self, X: Any, y: Any, sample_weight: Any, groups: Any, *, reset: bool) -> GivenRows:
        """Check what `fit` is given, and bring it to a row a picture."""
        # First, so that a missing y is the error that is named, whatever X is.
        if y is None:
            check_captions(y)
        readable, place = take_readable(X)
        checked = self._check_images(readable, reset=reset)
        # Of all pictures: captions of those that an embedding before could not read go with them.
        captions = check_captions(y, checked if place is None else range(n_pictures_of(X)))
        # scikit-learn's check of a fit on one row wants to read "n_samples=1" in the message.
        if captions.n_images < 2:
            raise ValueError(f"expected at least 2 images to train on, got {captions.n_images} (n_samples=1)")
        given = GivenRows(
            checked,
            captions,
            place,
            check_weights(sample_weight, captions.n_images),
            check_groups(groups, captions.n_images),
        )
        return given.merged(first_rows(X), stacklevel=4)

    def _encode_images(
        self,
        X: Any,
        captions: Captions,
        place: np.ndarray | None,
        sample_weight: Any,
        groups: np.ndarray | None,
        random_state: np.random.RandomState,
        resumed: bool,
    ) -> tuple[Any, CaptionedImages, Captions, np.ndarray | None]:
        """Turn images into prepared rows, and bring them into the order of training.

        Pictures that could not be read are left out with their captions. What is left of these comes back, and where
        the rows stood among all pictures: None, where none is left out.
        """
        sample_weight = check_weights(sample_weight, captions.n_images)
        if resumed:
            self._let_learn(self.image_encoder_, self.image_encoder, random_state)
            rows, kept = self._image_tower().prepare_readable(X)
        else:
            self.image_encoder_, rows, kept = fit_image_encoder(self.image_encoder, X, random_state)
        n_rows = n_rows_of(rows)
        if place is None and len(kept) < captions.n_images:
            place = kept
        if place is not None:
            captions = captions.take(place)
            sample_weight, groups = (None if part is None else part[place] for part in (sample_weight, groups))
        # Rows of an encoder that is trained are pictures still to be read, and each is an image of its own; features
        # are compared by what they hold.
        keys = range(n_rows) if is_trainable(self.image_encoder_) else row_digests(rows)
        images = merge_captioned(keys, captions, groups, sample_weight)
        if len(images) < 2:
            raise ValueError(f"expected at least 2 different images to train on, got {len(images)}")
        before = getattr(self, "_trained_rows", None) if resumed else None
        self._trained_rows = TrainedRows.of(X, captions, sample_weight).joined(before)
        return rows, images, captions, place

    def _let_learn(self, fitted: Any, asked: Any, random_state: np.random.RandomState) -> None:
        """Let an encoder that held still learn with the heads trained on it, if its parameters say so by now."""
        if isinstance(fitted, TrainableEncoder) and fitted.learn_as(asked, random_state):
            self.__dict__.pop("_continued", None)  # an optimiser that does not know the weights that learn now

    def _embed_readable(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        given, place = take_readable(images)
        tower = self._image_tower()
        with torch_threads(self.n_jobs):
            rows, kept = tower.prepare_readable(self._check_images(given, reset=False))
            kept = kept if place is None else place
            return tower.embed(rows), None if len(kept) == n_pictures_of(images) else kept

    def _set_training_gallery(
        self,
        rows: Any,
        captions: Captions,
        trained: CaptionedImages,
        text_rows: Any,
        image_rows: np.ndarray | None,
        rng: np.random.Generator,
    ) -> Self:
        """Make prepared images and the different captions the galleries, and what was trained on the banks.

        Parameters
        ----------
        rows : prepared images
        captions : Captions
            Of all of them.
        trained : CaptionedImages
        text_rows : prepared texts
            Those of `trained`.
        image_rows : ndarray of int64 or None
            Where the images stood in X, if not all of them could be read.
        rng : numpy.random.Generator
            What banks are drawn by.
        """
        listed, texts = gallery_texts(captions), trained.texts
        wanted = [str(text) for text in listed.tolist()]
        # Rows held out and rows of weight 0 have captions that are not among the texts trained on; they are in the
        # gallery all the same.
        row_of = {normal_form(text): row for row, text in enumerate(texts)} | {
            text: row for row, text in enumerate(texts)
        }
        rows_of = [row_of.get(text, row_of.get(normal_form(text))) for text in wanted]
        if None not in rows_of:  # a frozen encoder may have taken long for them
            text = self._embed_rows(self._text_tower(), text_rows[np.array(rows_of)])
        else:
            text = self._embed(self._text_tower(), wanted)
        image = self._embed_rows(self._image_tower(), rows)
        self._set_hubness(image, text, wanted, trained, rng)
        # All rows of X, those that were one image in training too: an index of a result is a row of X.
        return self._set_galleries(image, image_rows, listed, text)

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
