"""From a frame of pictures and tags, or from pictures alone, to columns of features."""

from typing import Any

from sklearn.compose import ColumnTransformer

from sklearn_mm.registry import stored_as

__all__ = ["PictureColumns"]


@stored_as("annotation.PictureColumns")
class PictureColumns(ColumnTransformer):
    """A `ColumnTransformer` that takes what is no frame for its only column, and says what it wants if it has more."""

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit all transformers, and put side by side what they make of their columns."""
        return super().fit_transform(self._as_frame(X), y, **params)

    def transform(self, X: Any, **params: Any) -> Any:
        """Put side by side what the transformers make of their columns."""
        return super().transform(self._as_frame(X), **params)

    def _as_frame(self, X: Any) -> Any:
        if hasattr(X, "columns"):
            return X
        names = [name for *_, own in self.transformers for name in ([own] if isinstance(own, str) else own)]
        if len(names) > 1:
            asked = ", ".join(f"{name!r}: ..." for name in names)
            raise TypeError(
                f"expected a data frame with the columns {' and '.join(map(repr, names))}, got a {type(X).__name__}; "
                f"pass pandas.DataFrame({{{asked}}}), or make the pipeline with tags=None for pictures alone"
            )
        import pandas

        return pandas.DataFrame({names[0]: list(X)})
