"""Tags that are the labels themselves: they give the answer away, and hide how little else is learnt."""

import warnings
from typing import Any

import numpy as np
from scipy import sparse

from sklearn_mm._tables import shown
from sklearn_mm.exceptions import LabelWarning

__all__ = ["warn_of_tags_as_labels"]

_LEAST = 5  # images of a label: fewer have some tag in common by chance
_SHARE = 0.95  # of the images of either, that have both
_N_NAMED = 5


def warn_of_tags_as_labels(tags: Any, labels: Any, tag_names: np.ndarray, classes: np.ndarray) -> None:
    """Warn of columns of tags that say where labels are true.

    Parameters
    ----------
    tags : csr_array of shape (n_images, n_tags)
    labels : {ndarray, csr_array} of shape (n_images, n_labels)
        1 where a label is true.
    tag_names, classes : ndarray of shape (n_tags,), (n_labels,)
    """
    tagged = sparse.csr_array(tags != 0, dtype=np.int64)
    true = sparse.csr_array(labels == 1, dtype=np.int64)
    both = (tagged.T @ true).tocoo()  # (n_tags, n_labels)
    of_tag, of_label = (np.asarray(part.sum(axis=0)).ravel() for part in (tagged, true))
    either = of_tag[both.row] + of_label[both.col] - both.data
    # What nearly every image has is alike without saying anything.
    is_same = (both.data >= _SHARE * either) & (of_label[both.col] >= _LEAST) & (2 * either <= tags.shape[0])
    found = sorted(zip(both.col[is_same].tolist(), both.row[is_same].tolist(), strict=True))
    if found:
        labelled = classes.tolist()  # Python's own, as numpy would print them by their types
        named = ", ".join(f"{shown(labelled[label])} ({tag_names[tag]})" for label, tag in found[:_N_NAMED])
        more = f" and {len(found) - _N_NAMED} more" if len(found) > _N_NAMED else ""
        warnings.warn(
            f"tags say where {len({label for label, _ in found})} of {len(classes)} labels are true: {named}{more}; "
            "pictures that come without such tags will get worse labels than any score on these tells: leave the tags "
            "out, TagVectorizer(exclude=[...])",
            LabelWarning,
            stacklevel=4,
        )
