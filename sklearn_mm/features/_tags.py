"""Tags that came with pictures, as an indicator."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_mm._docs import shared_docs
from sklearn_mm._joined import split_joined
from sklearn_mm._params import Integral, Interval, Real, StrOptions, positive_int, validate_params
from sklearn_mm._tables import as_column, is_missing, shown, to_list
from sklearn_mm._unicode import UNICODE_FORMS, normal_form
from sklearn_mm.exceptions import LabelWarning
from sklearn_mm.persistence import PickleStateMixin
from sklearn_mm.registry import stored_as

__all__ = ["TagVectorizer"]


@shared_docs
@stored_as("features.TagVectorizer")
class TagVectorizer(TransformerMixin, PickleStateMixin, BaseEstimator):
    """Turn the tags of images into an indicator of the tags there are.

    What `CountVectorizer` does for texts, for lists of tags: they may hold spaces, an image may have none, and no
    function has to be handed over.

    Parameters
    ----------
    max_features : int, default=1000
        Keep the tags that most images have; None keeps all.
    min_df : float or int, default=1
        Leave out tags of fewer images: a number of them, or a share.
    lowercase : bool, default=True
    separator : str, default=None
        What stands between tags where they are given as one str; None is any white space. A str that is a printed
        list, as "['sea', 'blue sky']", is that list.
    exclude : sequence of str, default=()
        Tags to leave out: those that are labels, and would give the answer away.
    sparse_output : bool, default=True
        A sparse matrix; or a dense one, as ``set_output`` wants it.
    unicode_form : {"NFC", "NFD", "NFKC", "NFKD"} or None, default="NFC"
        The normal form of Unicode into which tags are brought first, so that those that look alike are one. None
        leaves them as they are.

    Attributes
    ----------
    tags_ : list of str
        The tags, by falling number of images.
    n_features_out_ : int

    See Also
    --------
    sklearn_mm.annotation.make_annotation_pipeline : Puts it beside the pictures.

    Notes
    -----
    %(threads)s

    Examples
    --------
    >>> from sklearn_mm.features import TagVectorizer
    >>> tags = TagVectorizer().fit([["sea", "blue sky"], ["sea"], []])
    >>> tags.get_feature_names_out().tolist()
    ['sea', 'blue sky']
    >>> tags.transform([["Sea", "sand"], None]).toarray()
    array([[1, 0],
           [0, 0]], dtype=int8)
    """

    _parameter_constraints: dict[str, Any] = {
        "max_features": [positive_int, None],
        "min_df": [Interval(Real, 0, 1, closed="both"), positive_int],
        "lowercase": ["boolean"],
        "separator": [str, None],
        "exclude": ["array-like"],
        "sparse_output": ["boolean"],
        "unicode_form": [StrOptions(set(UNICODE_FORMS)), None],
    }

    def __init__(
        self,
        *,
        max_features: int | None = 1000,
        min_df: float | int = 1,
        lowercase: bool = True,
        separator: str | None = None,
        exclude: Any = (),
        sparse_output: bool = True,
        unicode_form: str | None = "NFC",
    ) -> None:
        self.max_features = max_features
        self.min_df = min_df
        self.lowercase = lowercase
        self.separator = separator
        self.exclude = exclude
        self.sparse_output = sparse_output
        self.unicode_form = unicode_form

    def fit(self, X: Any, y: Any = None) -> Self:
        """Collect the tags.

        Parameters
        ----------
        X : sequence of length n_images
            The tags of each image: a sequence of str, one str with all of them, or None (NaN, NA). A frame of one
            column is that column.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError
            X is one str, a mapping, a set or a file, or a row holds something else; the message names it.
        ValueError
            There are several columns.

        Warns
        -----
        LabelWarning
            Tags split at white space end in commas or semicolons.
        """
        validate_params(self)
        rows = self._read(X)
        self._warn_of_separators(rows)
        min_df: Any = self.min_df
        # 1 is one image and 1.0 all of them, as in CountVectorizer.
        least = min_df if isinstance(min_df, Integral) else min_df * len(rows)
        counts = Counter(tag for row in rows for tag in row)  # of images: a row is a set
        excluded = {self._normal(tag) for tag in self.exclude}
        kept = [tag for tag, count in counts.items() if count >= least and tag not in excluded]
        # Equally frequent tags by name: rows in another order give the same columns.
        self.tags_ = sorted(kept, key=lambda tag: (-counts[tag], tag))[: self.max_features]
        self.n_features_out_ = len(self.tags_)
        return self

    def transform(self, X: Any) -> Any:
        """Mark the tags of images.

        Parameters
        ----------
        X : sequence of length n_images
            As in `fit`. Tags that were not there in `fit` are left out.

        Returns
        -------
        csr_array or ndarray of shape (n_images, n_features_out_), int8
        """
        check_is_fitted(self, "tags_")
        place = {tag: column for column, tag in enumerate(self.tags_)}
        rows = [sorted(place[tag] for tag in row if tag in place) for row in self._read(X)]
        # dtype, as numpy makes float64 of empty lists. Columns are sorted in each row, as a canonical csr matrix has
        # them.
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        columns = np.array([column for row in rows for column in row], dtype=np.int64)
        marks = sparse.csr_array(
            (np.ones(len(columns), np.int8), columns, starts), shape=(len(rows), self.n_features_out_)
        )
        return marks if self.sparse_output else marks.toarray()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the tags, shape (n_features_out_,), str objects."""
        check_is_fitted(self, "tags_")
        return np.array(self.tags_, dtype=object)

    def _read(self, X: Any) -> list[set[str]]:
        listed = as_column(X, "tags")
        return [{self._normal(tag) for tag in self._tags_of(entry, row)} for row, entry in enumerate(listed)]

    def _tags_of(self, entry: Any, row: int) -> Iterable[str]:
        if isinstance(entry, str):
            return split_joined(entry, self.separator)
        tags = entry if isinstance(entry, list | tuple) else self._tags_of_other(entry, row)
        for tag in tags:
            if not isinstance(tag, str):
                raise TypeError(f"expected tags of type str, got {type(tag).__name__} in row {row}: {shown(tag)}")
        return tags

    def _tags_of_other(self, entry: Any, row: int) -> list[Any]:
        if is_missing(entry):
            return []
        if isinstance(entry, bytes | Mapping) or not isinstance(entry, Iterable):
            raise TypeError(f"expected str, a sequence of str or None as the tags of row {row}, got {shown(entry)}")
        return to_list(entry)

    def _warn_of_separators(self, rows: list[set[str]]) -> None:
        if self.separator is not None:
            return
        tags = set().union(*rows)
        for separator in (",", ";"):
            ending = sorted(tag for tag in tags if tag.endswith(separator))
            if 2 * len(ending) >= len(tags) > 0:
                warnings.warn(
                    f"{len(ending)} of {len(tags)} tags end in {separator!r}, {shown(ending[0])} for one; "
                    f"set separator={separator!r} to split there",
                    LabelWarning,
                    stacklevel=3,
                )

    def _normal(self, tag: str) -> str:
        return normal_form(str(tag).lower() if self.lowercase else str(tag), self.unicode_form)

    @classmethod
    def _from_format(cls, state: dict[str, Any], number: int) -> dict[str, Any]:
        """Bring the state of an older format to today's: tags were taken as they came."""
        return super()._from_format({"unicode_form": None, **state}, number)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
