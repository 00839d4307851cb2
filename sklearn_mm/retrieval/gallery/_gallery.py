"""A gallery of pictures with names: added to, searched, saved."""

import warnings
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.utils import _safe_indexing

from sklearn_mm._checks import check_captions, check_k
from sklearn_mm._docs import shared_docs
from sklearn_mm._tables import shown, with_length
from sklearn_mm.exceptions import GalleryWarning
from sklearn_mm.images import check_sequence, is_table
from sklearn_mm.registry import stored_as
from sklearn_mm.retrieval._cutoff import USUAL_RISK, Cutoff, calibrate, check_risk
from sklearn_mm.retrieval.gallery._embedder import Embedder
from sklearn_mm.retrieval.gallery._files import read_facts, read_gallery, write_gallery
from sklearn_mm.retrieval.gallery._items import Items, check_kind, check_metadata, check_once, listed_ids, paths_of
from sklearn_mm.retrieval.gallery._queries import Queries, read_queries
from sklearn_mm.retrieval.gallery._result import SearchResult
from sklearn_mm.retrieval.gallery._scoring import Scoring
from sklearn_mm.retrieval.gallery._vectors import Vectors
from sklearn_mm.retrieval.gallery._where import rows_where
from sklearn_mm.towers import n_rows_of

__all__ = ["Gallery"]

_FOUND = 10  # pictures for who does not say how many
_AT_ONCE = 4096  # pictures whose features are held while they are embedded
# Weights of what a person says. Over 146 words as queries to 1,000 photographs of Flickr8k, the first ten judged by the
# captions, they raise the mean average precision among the others from 0.201 to 0.215; 1 for both lowers it to 0.191.
_LIKED, _DISLIKED = 1.0, 0.25


@shared_docs
@stored_as("retrieval.NamedGallery")
class Gallery:
    """Pictures with names and metadata, found by sentences and by pictures.

    Parameters
    ----------
    model : estimator
        A fitted ranker of this library or of one's own, or a `Pipeline` or a search that ends in one. It is kept as it
        is; what it is fitted to anew does not change the vectors that are there.
    index : ExactIndex, FaissIndex or another with `add` and `search`, default=None
        Empty. None compares with every picture. An `ExactIndex` keeps vectors in its `dtype`; an approximate index is
        searched where there is no `where`, beside the vectors themselves.

    Attributes
    ----------
    ids : list of str or of int
        The names, in the order in which the pictures came.
    metadata : DataFrame
        One row a picture, with the ids as its index. Needs pandas.

    See Also
    --------
    SearchResult : What a search answers.
    JointEmbeddingRanker, CorrelationRanker, RankerEnsemble : Models.

    Notes
    -----
    Identical pictures under two ids are two pictures: both are found, with equal scores, in the order in which they
    came. The order of `ids` is that of coming; what is updated comes last.

    To add pictures costs to embed them alone, and answers are, to the bit, those of a gallery into which all came at
    once, as long as the network before the ranker gives a picture one vector in whatever company (which those of this
    library do in float32). Memory is 4 bytes a component and picture, ids and metadata.

    Any number of threads may search at the same time; what changes a gallery takes one that no other thread uses.

    %(threads)s

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mm.retrieval import CorrelationRanker, Gallery
    >>> captions = [f"a {colour} {shape}" for colour in ("red", "green", "blue") for shape in ("dot", "box")] * 8
    >>> features = np.tile(np.eye(6), (8, 1)) + np.random.default_rng(0).normal(0, 0.1, (48, 6))
    >>> model = CorrelationRanker(random_state=0).fit(features, captions)
    >>> names = [f"{number}.jpg" for number in range(6)]
    >>> gallery = Gallery(model).add(features[:6], ids=names, metadata={"year": [2019, 2020, 2021, 2022, 2023, 2024]})
    >>> gallery.search("a green dot", k=1).ids
    ['2.jpg']
    >>> gallery.search("a green dot", k=1, where=[False, True] * 3).ids
    ['3.jpg']
    >>> gallery.similar("2.jpg", k=1).ids
    ['3.jpg']
    >>> len(gallery.remove(["2.jpg"]))
    5
    """

    def __init__(self, model: Any, *, index: Any = None) -> None:
        if index is not None and not (hasattr(index, "add") and hasattr(index, "search")):
            raise TypeError(f"expected an index with add and search, or None, got {type(index).__name__}")
        if index is not None and len(index):
            raise ValueError(f"index must hold no items, which come with add(), got {len(index)}")
        self.model = model
        self.index = index
        self._embedder = Embedder(model)
        self._vectors = Vectors(self._embedder.similarity, index)
        self._items = Items()
        self._cutoff: Cutoff | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, id: Any) -> bool:
        return id in self._items.place

    def __repr__(self) -> str:
        return f"<Gallery of {len(self)} pictures, model={type(self.model).__name__}>"

    @property
    def ids(self) -> list[Any]:
        """The names, in the order in which the pictures came."""
        return list(self._items.ids)

    @property
    def metadata(self) -> Any:
        """What is known of the pictures, as a data frame of pandas with the ids as its index: a copy."""
        return self._items.frame().copy()

    # Changes ------------------------------------------------------------------------------------------------------

    def add(self, images: Any, ids: Any = None, metadata: Any = None) -> Self:
        """Add pictures.

        Parameters
        ----------
        images : sequence of length n_images, or array-like of shape (n_images, n_features)
            As the model takes them.
        ids : sequence of (str or int), length n_images, optional
            By default the paths, as they are given.
        metadata : data frame, mapping of columns or sequence of mappings, of n_images rows, optional
            A column that other pictures lack is missing there, and the other way round.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            An id stands twice or is there already, pictures that are no paths have no ids, or lengths differ. Nothing
            is added then.
        TypeError
            Ids are neither all str nor all int.
        ImageReadError
            A picture cannot be read. With an encoder of ``on_error="skip"`` it is left out, with its id and metadata.
        """
        images, names, paths, columns = self._check_new(images, ids, metadata)
        self._items.check_new(names)
        self._add(images, names, paths, columns)
        return self

    def update(self, images: Any, ids: Any = None, metadata: Any = None) -> Self:
        """Replace pictures that are there by new ones, and add those that are not.

        Parameters
        ----------
        images, ids, metadata
            As in `add`. A picture that is replaced comes last, and its metadata is what is given here, or missing.

        Returns
        -------
        self
        """
        images, names, paths, columns = self._check_new(images, ids, metadata)
        check_kind(names, self._items.ids[0] if len(self) else None)
        check_once(names)
        vectors, kept = self._embed(images)  # before anything is taken out: a picture may be no picture
        there = [name for name in (names if kept is None else [names[row] for row in kept]) if name in self]
        if there:
            self.remove(there)
        self._keep(vectors, kept, names, paths, columns)
        return self

    def remove(self, ids: Any) -> Self:
        """Take pictures out.

        Parameters
        ----------
        ids : sequence of (str or int), or one of them

        Returns
        -------
        self

        Raises
        ------
        KeyError
            An id is not there. Nothing is removed then.
        """
        places = np.unique(self._items.places_of(ids))
        if len(places):
            self._vectors.remove(places)
            self._items.remove(places)
        return self

    def _check_new(
        self, images: Any, ids: Any, metadata: Any
    ) -> tuple[Any, list[Any], list[str | None], dict[str, np.ndarray]]:
        check_sequence(images)
        images = with_length(images)
        n_images = n_rows_of(images)
        if not n_images:
            raise ValueError("expected at least one picture, got an empty sequence (0 sample(s))")
        paths: list[str | None] = [None] * n_images if is_table(images) else paths_of(images)
        if ids is None:
            if None in paths:
                raise ValueError(
                    f"ids are the paths of pictures by default, and row {paths.index(None)} is no path; pass ids, one "
                    "for each picture"
                )
            ids = paths
        names = listed_ids(ids)
        if len(names) != n_images:
            raise ValueError(f"expected one id for each of the {n_images} pictures, got {len(names)}")
        return images, names, paths, check_metadata(metadata, n_images)

    def _add(self, images: Any, names: list[Any], paths: list[Any], columns: dict[str, np.ndarray]) -> None:
        vectors, kept = self._embed(images)
        self._keep(vectors, kept, names, paths, columns)

    def _embed(self, images: Any) -> tuple[np.ndarray, np.ndarray | None]:
        n_images = n_rows_of(images)
        if is_table(images) or n_images <= _AT_ONCE:
            return self._embedder.items(images)
        # The features of many pictures are larger than their vectors by far.
        parts, kept = [], []
        for start in range(0, n_images, _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, n_images))
            vectors, own = self._embedder.items(_safe_indexing(images, rows))
            parts.append(vectors)
            kept.append(rows if own is None else rows[own])
        joined = np.concatenate(kept)
        return np.concatenate(parts), None if len(joined) == n_images else joined

    def _keep(
        self,
        vectors: np.ndarray,
        kept: np.ndarray | None,
        names: list[Any],
        paths: list[Any],
        columns: dict[str, np.ndarray],
    ) -> None:
        if kept is not None:
            names, paths = [names[row] for row in kept], [paths[row] for row in kept]
            columns = {name: column[kept] for name, column in columns.items()}
        if len(names):
            self._vectors.add(vectors)
            self._items.add(names, paths, columns)

    # Files --------------------------------------------------------------------------------------------------------

    def save(self, folder: Any) -> None:
        """Write the gallery into a folder, without the model: save that beside it.

        Vectors are written as ``.npy``, names and metadata as Parquet, so that other programs read them as well.
        Whatever interrupts it leaves what was in the folder before.

        Parameters
        ----------
        folder : path
            A new one, an empty one, or one that holds a gallery, which is replaced.

        Raises
        ------
        FileExistsError
            There is something else.
        ImportError
            pyarrow is not installed: ``pip install 'sklearn-mm[gallery]'``.
        ValueError
            A column of the metadata holds entries of several types.

        Warns
        -----
        GalleryWarning
            The model holds what cannot be looked into; it is then not checked when the gallery is opened.
        """
        fingerprint = self._embedder.fingerprint()
        if fingerprint is None:
            warnings.warn(
                f"the {type(self.model).__name__} holds what cannot be told by its content; whether it is the model of "
                "this gallery is not checked when that is opened",
                GalleryWarning,
                stacklevel=2,
            )
        facts = {
            "model": {"class": type(self.model).__name__, "fingerprint": fingerprint},
            "similarity": self._embedder.similarity,
        }
        write_gallery(folder, self._vectors, self._items, self._cutoff, facts)

    @classmethod
    def load(cls, folder: Any, model: Any, *, index: Any = None, mmap: bool = True) -> Self:
        """Open a gallery that `save` has written.

        Parameters
        ----------
        folder : path
        model : estimator
            The fitted model that the gallery was made with.
        index : as in the constructor, optional
            By default the one that it was saved with.
        mmap : bool, default=True
            Leave the vectors in their file, mapped into memory: opening takes no time for them, and processes share
            them. False reads them.

        Returns
        -------
        Gallery
            It may be added to, and saved to the same folder.

        Raises
        ------
        FileNotFoundError
            There is no gallery.
        ValueError
            It was made with another model, by a later version of this library, or is damaged.
        """
        facts = read_facts(folder)
        gallery = cls(model, index=index)
        known, fingerprint = facts["model"]["fingerprint"], gallery._embedder.fingerprint()
        if known is not None and known != fingerprint:
            raise ValueError(
                f"{folder} holds the gallery of another model, a {facts['model']['class']} with the fingerprint "
                f"{known[:8]}, and this {type(model).__name__} has {str(fingerprint)[:8]}: its vectors would be "
                "compared with those of another space; open it with the model it was saved with, or add the pictures "
                "to a new Gallery(model)"
            )
        gallery._items, exact, other, gallery._cutoff = read_gallery(folder, facts, mmap=mmap)
        if exact is not None:
            gallery._vectors.open(exact, other)
        return gallery

    # Searches -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: Any,
        k: int | None = None,
        where: Any = None,
        min_score: float | None = None,
        cutoff: str | float | None = None,
        *,
        warn_unknown: bool = True,
    ) -> SearchResult:
        """Find pictures.

        Parameters
        ----------
        query : str, picture, dict, or list of these
            A sentence; a picture as the model takes one (a path, a PIL image, an array, a row of features); a mixture,
            such as ``{"image": "cat.jpg", "text": "but in red", "minus": "night"}``. In a mixture each part may be
            several in a list, and each of these ``(part, weight)``: weights are 1, of "minus" 0.5, and count spreads of
            scores. A str that ends like the name of a picture, or names a file, is a path.
        k : int, default=None
            How many to find at most: by default 10, or all of fewer; with a `cutoff` all that it lets pass.
        where : mask of shape (n_pictures,), callable or str, optional
            Search among these alone: a mask in the order of `ids`, a function of the `metadata` that returns one, or
            an expression that `pandas.DataFrame.query` understands (``"year > 2020"``).
        min_score : float, optional
            Leave out pictures of a lower score.
        cutoff : "calibrated" or float, optional
            Return as many pictures as the sentence deserves, perhaps none: as many as are needed so that no more than a
            share of the right ones is missed. "calibrated" is the share that `calibrate` was given.
        warn_unknown : bool, default=True
            Whether to warn of words that training has not seen, of each once.

        Returns
        -------
        SearchResult
            Best first; of equal scores the picture that came first. Nothing, where `where` leaves nothing.

        Raises
        ------
        ValueError
            The gallery is empty, a sentence is, a mixture or `where` makes no sense, or `k` is no positive int.
        FileNotFoundError, ImageReadError
            A picture is not there, or cannot be read.

        Warns
        -----
        GalleryWarning
            The gallery holds less than `k` pictures; all are returned.
        UnknownWordsWarning
            Words have no say in what is found.
        """
        self._require_items()
        if min_score is not None and not _is_number(min_score):
            raise TypeError(f"min_score must be a number, got {type(min_score).__name__}")
        if cutoff is not None:
            self._check_cutoff(cutoff)
        rows = None if where is None else rows_where(where, self._items)
        queries = read_queries(query)
        if warn_unknown:
            self._embedder.warn_of_unknown(queries.texts, stacklevel=2)
        n_searched = len(self) if rows is None else len(rows)
        if cutoff is None:
            scores, places = self._scoring.search(queries, self._check_k(k, n_searched), rows)
            return self._result(queries.names, scores, places, min_score, several=queries.several)
        most = n_searched if k is None else self._check_k(k, n_searched)
        vectors = self._embedder.sentences(self._sentences_of(queries))
        least = self._least_scores(vectors, queries.texts, cutoff, min_score)
        query, place, score = self._vectors.search_above(vectors, least, rows)
        counts = np.bincount(query, minlength=len(queries))
        kept = np.arange(len(query)) - (np.cumsum(counts) - counts)[query] < most
        return self._table(queries.names, np.minimum(counts, most), place[kept], score[kept], several=queries.several)

    def refine(
        self, query: Any, liked: Any = (), disliked: Any = (), k: int | None = None, where: Any = None
    ) -> SearchResult:
        """Search again, with what a person has said of pictures found.

        Parameters
        ----------
        query : as in `search`
            What was asked for; of several queries none.
        liked, disliked : sequence of (str or int), or one of them
            Ids of pictures that are, and that are not, what was meant.
        k, where
            As in `search`.

        Returns
        -------
        SearchResult
            Without the pictures that are disliked.

        Raises
        ------
        KeyError
            An id is not there.
        ValueError
            An id is liked and disliked, or the model compares otherwise than by cosines.

        Notes
        -----
        To the query the mean vector of the liked pictures is added, as in Rocchio's algorithm, each divided by the
        spread of its scores, and a quarter of that of the disliked ones is taken off: these are near to the query as
        well, and a larger share takes off what was meant.
        """
        self._require_items()
        queries = read_queries(query)
        if queries.several:
            raise ValueError(f"expected one query to refine, got a list of {len(queries)}")
        good, bad = (np.unique(self._items.places_of(ids)) for ids in (liked, disliked))
        if len(both := np.intersect1d(good, bad)):
            raise ValueError(f"{shown(self._items.ids[both[0]])} is liked and disliked; leave it out of one of them")
        if self._embedder.similarity != "cosine":
            raise ValueError(f"refining adds cosines, and the model compares by {self._embedder.similarity!r}")
        parts, weights = [self._scoring.vectors_of(queries)[0]], [1.0]
        for places, weight in ((good, _LIKED), (bad, -_DISLIKED)):
            if len(places):
                mean = self._vectors.take(places).mean(axis=0)
                if self._embedder.corrects_hubs:
                    mean[-1] = 0
                parts.append(mean)
                weights.append(weight)
        vector = parts[0] if len(parts) == 1 else self._scoring.mixed(np.stack(parts), weights)
        rows = None if where is None else rows_where(where, self._items)
        if len(bad):
            rows = np.setdiff1d(np.arange(len(self)) if rows is None else rows, bad)
        scores, places = self._scoring.nearest(
            vector[None], self._check_k(k, len(self) if rows is None else len(rows)), rows
        )
        return self._result(queries.names, scores, places)

    def similar(self, id: Any, k: int | None = None, where: Any = None) -> SearchResult:
        """Find the pictures most similar to one of the gallery, itself not among them.

        Parameters
        ----------
        id : str or int
        k, where
            As in `search`.

        Returns
        -------
        SearchResult
            Scores are cosines.

        Raises
        ------
        KeyError
            There is no such id.
        """
        (place,) = self._items.places_of([id])
        rows = None if where is None else rows_where(where, self._items)
        n_others = len(self) - 1 if rows is None else int(np.count_nonzero(rows != place))
        k = self._check_k(k, n_others)
        query = self._vectors.take(np.array([place]))
        if self._embedder.corrects_hubs:
            query[:, -1] = 0
        # One more, for the picture itself; of all, a scan that leaves out one would copy the others.
        n_found = min(k + 1, len(self) if rows is None else len(rows))
        scores, places = self._scoring.nearest(query, n_found if k else 0, rows)
        others = np.flatnonzero(places[0] != place)[:k]
        return self._result([str(id)], scores[:, others], places[:, others])

    # How many ----------------------------------------------------------------------------------------------------

    def calibrate(self, images: Any, captions: Any, *, risk: float = USUAL_RISK) -> Self:
        """Learn how many pictures a sentence deserves, for `search` with a `cutoff`.

        A ranker with a `calibration_fraction` has learnt it in its `fit`, of images that it held out; what is learnt
        here goes before.

        Parameters
        ----------
        images : sequence of length n_images, or array-like of shape (n_images, n_features)
            Pictures that the model has not been trained on, as it takes them. They do not come into the gallery.
        captions : sequence of (str or sequence of str), length n_images
            Sentences as they will be asked, each of which the picture is a right answer to.
        risk : float, default=0.1
            The share of right pictures that may be missed.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            There are fewer pictures than ``1 / risk - 1``, or the model compares otherwise than by cosines.

        Notes
        -----
        Of sentences and right pictures like these the share missed is at most `risk` in expectation, however many
        pictures there are beside [1]_ [2]_; with 1,000 pictures to learn from it is mostly within 0.02 of it. A
        sentence gets nothing if the model has never seen so many of its words: a larger share than in all but a tenth
        of the risk of these captions. Encoders that know every word, in pieces, have no such words.

        References
        ----------
        .. [1] Xu, Guo, Wei, "Conformal Ranked Retrieval", 2024, https://arxiv.org/abs/2404.17769
        .. [2] Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal Risk Control", ICLR 2024,
           https://arxiv.org/abs/2208.02814
        """
        if self._embedder.similarity != "cosine":
            raise ValueError(
                f"a cutoff is calibrated on cosines, and the model compares by similarity={self._embedder.similarity!r}"
            )
        check_sequence(images)
        images = with_length(images)
        known = check_captions(captions, images)
        check_risk(risk, known.n_images)
        bank, kept = self._embed(images)
        texts, owner = known.texts, known.image_index
        if kept is not None:  # pictures that could not be read
            place = np.full(known.n_images, -1)
            place[kept] = np.arange(len(kept))
            rows = np.flatnonzero(place[owner] >= 0)
            texts, owner = [texts[row] for row in rows], place[owner[rows]]
        queries = self._embedder.sentences(texts)
        self._cutoff = calibrate(bank, queries, texts, owner, self._embedder.sentences, risk)
        return self

    @property
    def _scoring(self) -> Scoring:
        return Scoring(self._embedder, self._vectors)

    @property
    def _learnt_cutoff(self) -> Cutoff | None:
        """What was learnt here, or in the `fit` of the ranker."""
        return self._cutoff if self._cutoff is not None else getattr(self._embedder.ranker, "_cutoff", None)

    def _check_cutoff(self, cutoff: Any) -> None:
        if isinstance(cutoff, str) and cutoff != "calibrated":
            raise ValueError(f"cutoff must be 'calibrated', a share of right pictures or None, got {cutoff!r}")
        learnt = self._learnt_cutoff
        if learnt is None:
            raise ValueError(
                "a cutoff has to be learnt before, on pictures that the model has not been trained on: "
                "gallery.calibrate(images, captions), or calibration_fraction=0.1 of the ranker, before it is fitted"
            )
        if not isinstance(cutoff, str):
            check_risk(cutoff, learnt.n_images)

    def _sentences_of(self, queries: Queries) -> list[str]:
        for parts, name in zip(queries.parts, queries.names, strict=True):
            if len(parts) > 1 or not parts[0].is_text:
                raise ValueError(f"a cutoff is calibrated for single sentences, got {name!r}; use min_score")
        return queries.texts

    def _least_scores(
        self, vectors: np.ndarray, texts: list[str], cutoff: str | float, min_score: float | None
    ) -> np.ndarray:
        learnt = self._learnt_cutoff
        assert learnt is not None
        risk = learnt.risk if isinstance(cutoff, str) else float(cutoff)
        least = learnt.least_scores(vectors, texts, self._embedder.sentences, risk)
        return least if min_score is None else np.maximum(least, np.float32(min_score))

    def _require_items(self) -> None:
        if not len(self):
            raise ValueError("the gallery is empty; add pictures before it is searched: gallery.add(paths)")

    def _check_k(self, k: int | None, n_searched: int) -> int:
        if k is None:
            return min(_FOUND, n_searched)
        if isinstance(k, int | np.integer) and not isinstance(k, bool) and k > len(self):
            warnings.warn(
                f"k={k} is larger than the gallery, which has {len(self)} pictures; all are returned",
                GalleryWarning,
                stacklevel=3,
            )
            return n_searched
        return min(check_k(k, len(self)), n_searched)

    def _result(
        self,
        names: list[str],
        scores: np.ndarray,
        places: np.ndarray,
        min_score: float | None = None,
        *,
        several: bool = False,
    ) -> SearchResult:
        found = places >= 0  # an approximate index may find fewer
        if min_score is not None:
            found &= scores >= min_score
        return self._table(names, found.sum(axis=1), places[found], scores[found], several=several)

    def _table(
        self, names: list[str], counts: np.ndarray, places: np.ndarray, scores: np.ndarray, *, several: bool
    ) -> SearchResult:
        return SearchResult(
            names,
            counts.tolist(),
            [self._items.ids[place] for place in places],
            scores,
            self._items.take(places),
            [self._items.paths[place] for place in places],
            several,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
