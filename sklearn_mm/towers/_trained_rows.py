"""Which rows a model was trained on, told by a few bytes each: so that scores of the same rows can say so."""

import hashlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from scipy import sparse

from sklearn_mm._checks import Captions
from sklearn_mm._tables import as_number_table, frame_column, frame_names, is_frame
from sklearn_mm._threads import in_threads
from sklearn_mm._unicode import normal_form
from sklearn_mm.exceptions import LeakWarning
from sklearn_mm.images import Pictures, is_table
from sklearn_mm.registry import stored_as

__all__ = ["TrainedRows"]

_MOST_KEPT = 2**16  # codes of a side: half a megabyte
_FEW = 0.01  # of the pictures scored; a data set has a few pictures twice without any fault
_FEW_CAPTIONS = 0.05
_SHOWN = 5  # rows that a message names
_N_PROJECTIONS = 16
# Of the length of a projection of unit variance. The same picture in another batch differs by 1e-6 of it, and gets
# another code once in a thousand times; another picture by far more than a step, in each of the projections.
_STEPS = 128
_BLOCK = 2**22  # numbers looked at in one go
_TRAINING_SCORERS = {"_fit_and_score", "_incremental_fit_estimator"}


@stored_as("towers.TrainedRows")
@dataclass(frozen=True, eq=False)
class TrainedRows:
    """Codes of the pictures and captions that a model was trained on.

    Attributes
    ----------
    images : ndarray of shape (n_kept,), uint64
        Of the pictures or their features, sorted; of more than 65,536 a part.
    n_images : int
        How many different ones there were; 0 where X could not be told by its content.
    texts : ndarray of shape (n_kept_texts,), uint64
        Of the captions, likewise; empty where there are none.
    n_texts : int
    text_repeats : float
        Share of the captions of which another picture had one of the same wording.
    """

    images: np.ndarray
    n_images: int
    texts: np.ndarray
    n_texts: int
    text_repeats: float

    @classmethod
    def of(cls, X: Any, captions: Captions | None = None, weight: Any = None) -> Self:
        """Note rows that are trained on.

        Parameters
        ----------
        X : matrix of features, or pictures
        captions : Captions, optional
        weight : ndarray of shape (n_images,), optional
            Rows of weight 0 are none.
        """
        codes = _codes(X)
        counts = None if weight is None else np.asarray(weight) > 0
        if codes is not None and counts is not None and len(counts) == len(codes):  # without those it could not read
            codes = codes[counts]
        images = np.empty(0, np.uint64) if codes is None else np.unique(codes)
        if captions is None:
            return cls(_part(images), len(images), np.empty(0, np.uint64), 0, 0.0)
        texts, owner = _text_codes(captions.texts), captions.image_index
        if counts is not None:
            texts, owner = texts[counts[owner]], owner[counts[owner]]
        different, number = np.unique(texts, return_inverse=True)
        pairs = np.unique(np.column_stack([number, owner]), axis=0)  # a picture may have a caption twice
        n_holders = np.bincount(pairs[:, 0], minlength=len(different))
        repeats = float((n_holders[number] > 1).mean()) if len(texts) else 0.0
        return cls(_part(images), len(images), _part(different), len(different), repeats)

    def joined(self, before: "TrainedRows | None") -> "TrainedRows":
        """Add the rows that were trained on before."""
        if before is None:
            return self
        images, texts = np.union1d(self.images, before.images), np.union1d(self.texts, before.texts)
        # Those that both have are counted once, as far as they were kept.
        n_images = self.n_images + before.n_images - (len(self.images) + len(before.images) - len(images))
        n_texts = self.n_texts + before.n_texts - (len(self.texts) + len(before.texts) - len(texts))
        share = self.n_texts / max(self.n_texts + before.n_texts, 1)
        repeats = share * self.text_repeats + (1 - share) * before.text_repeats
        return TrainedRows(_part(images), n_images, _part(texts), n_texts, repeats)

    def warn(self, X: Any, captions: Captions | None = None) -> None:
        """Say so where rows that are scored were trained on.

        Warns
        -----
        LeakWarning
            A hundredth of the pictures were, or clearly more captions than come twice among those of training.
        """
        codes = _codes(X) if self.n_images else None
        told = []
        if codes is not None:
            rows = np.flatnonzero(np.isin(codes, self.images))
            kept = len(self.images) / self.n_images
            share = len(rows) / len(codes)
            if share >= (1 - _FEW) * kept and _is_a_training_score_on_purpose():
                return
            if len(rows) and share >= _FEW * kept:
                named = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
                told.append(f"{'at least ' * (kept < 1)}{len(rows)} of {len(codes)} pictures (rows {named})")
        if captions is not None and self.n_texts:
            known = np.isin(_text_codes(captions.texts), self.texts)
            kept = len(self.texts) / self.n_texts
            expected = self.text_repeats * kept
            noise = 3 * np.sqrt(expected * (1 - expected) / len(known))
            if known.mean() > expected + _FEW_CAPTIONS * kept + noise:
                told.append(
                    f"{'at least ' * (kept < 1)}{known.sum()} of {len(known)} captions (of those trained on "
                    f"{self.text_repeats:.0%} come twice)"
                )
        if told:
            warnings.warn(
                f"{' and '.join(told)} that are scored were trained on: the score says how well they are remembered, "
                "not what is reached on new ones; score rows that were held out "
                "(sklearn_mm.model_selection.find_leaks tells what two sets share)",
                LeakWarning,
                stacklevel=3,
            )


def _is_a_training_score_on_purpose() -> bool:
    """Tell whether scikit-learn scores the very rows it has fitted, as for learning curves: no slip of anybody's.

    Its scorers get the rows and nothing else, so that the functions which call them are what tells.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name in _TRAINING_SCORERS and module.startswith("sklearn.model_selection."):
            return True
        frame = frame.f_back
    return False


def _part(codes: np.ndarray) -> np.ndarray:
    """Keep so many of sorted codes, which are as good as drawn at random."""
    if len(codes) <= _MOST_KEPT:
        return codes
    return codes[np.linspace(0, len(codes) - 1, _MOST_KEPT).round().astype(np.int64)]


def _text_codes(texts: Sequence[str]) -> np.ndarray:
    return np.array([_hash(normal_form(text).encode("utf-8", "surrogatepass")) for text in texts], dtype=np.uint64)


def _hash(content: Any) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _codes(X: Any) -> np.ndarray | None:
    """Return a code for each row, equal for rows of one content, (n_rows,) uint64; None where X cannot tell."""
    if not (hasattr(X, "__len__") or hasattr(X, "shape")):  # for others to refuse
        return None
    if is_frame(X) and len(frame_names(X)) > 1:
        numbers = as_number_table(X)
        if numbers.dtype.kind == "O":  # pictures beside tags: the pictures tell
            columns = (frame_column(X, number) for number in range(len(frame_names(X))))
            pictures = [column for column in columns if not is_table(np.asarray(column)[:1])]
            own = [_codes_of_pictures(column) for column in pictures]
            return np.bitwise_xor.reduce([one for one in own if one is not None], axis=0) if own else None
        X = numbers
    if not is_table(X):
        return _codes_of_pictures(X)
    rows = X.tocsr() if sparse.issparse(X) else np.asarray(X)
    if rows.ndim == 1:
        rows = rows[:, None]
    return _codes_of_features(rows) if rows.ndim == 2 and rows.dtype.kind in "biuf" else None


def _codes_of_features(rows: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((rows.shape[1], _N_PROJECTIONS), dtype=np.float32)
    factors = rng.integers(1, 2**63, _N_PROJECTIONS + 1, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    codes = np.empty(rows.shape[0], dtype=np.uint64)
    step = max(_BLOCK // max(rows.shape[1], 1), 1)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are for `transform` to refuse
        for start in range(0, rows.shape[0], step):
            block = rows[start : start + step].astype(np.float32)
            squares = (
                block.multiply(block).sum(axis=1) if sparse.issparse(block) else np.einsum("ij,ij->i", block, block)
            )
            length = np.sqrt(np.asarray(squares, dtype=np.float64)).ravel()
            safe = np.where(length > 0, length, 1)
            places = np.column_stack([np.asarray(block @ directions) / safe[:, None], np.log2(safe)])
            # to integers, and these to one number, by sums that run over
            steps = np.rint(places * _STEPS).astype(np.int64).view(np.uint64)
            codes[start : start + step] = (steps * factors).sum(axis=1, dtype=np.uint64)
    return codes


def _codes_of_pictures(X: Any) -> np.ndarray | None:
    pictures = Pictures(X)
    if pictures.is_lazy:  # each row may cost the decoding of a picture, and may come out another way each time
        return None
    codes = np.empty(len(pictures), dtype=np.uint64)

    def read(rows: Iterator[int]) -> None:
        for row in rows:
            codes[row] = _code_of_picture(pictures[row])

    in_threads(read, range(len(pictures)))
    return codes


def _code_of_picture(picture: Any) -> int:
    """Return the code of a picture by its content: that of a file, whatever its name, or its pixels."""
    if isinstance(picture, str | os.PathLike):
        path = Path(os.fsdecode(os.fspath(picture)))
        try:
            picture = path.read_bytes() if path.is_file() else None  # a pipe would be waited for
        except (OSError, ValueError):  # whoever reads it says what is wrong with it
            picture = None
        if picture is None:
            return _hash(b"name" + os.fsencode(path))
    if isinstance(picture, bytes | bytearray | memoryview):
        return _hash(picture)
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture)
    if pixels.dtype.kind == "O":
        return _hash(repr(picture).encode())
    return _hash(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes())
