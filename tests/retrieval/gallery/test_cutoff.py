"""How many pictures a sentence deserves."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from sklearn_mm.metrics import unit_rows
from sklearn_mm.retrieval import Gallery

N_WORDS, N_COMPONENTS, N_IMAGES = 60, 24, 3000
TOLERANCE = 0.02  # of the share missed, of 3,000 pictures held out and 3,000 others: 2.5 standard errors


class FakeRanker(BaseEstimator):
    """A joint space of made-up words: a picture is a noisy mean of its words.

    All pictures have something in common, which the word "thing" says: sentences with it score high over everything.
    """

    def fit(self, X=None, y=None):
        rng = np.random.default_rng(1)
        self.n_features_in_ = N_COMPONENTS
        self.words_ = {f"w{word}": rng.normal(size=N_COMPONENTS) for word in range(N_WORDS)}
        self.words_["thing"] = rng.normal(size=N_COMPONENTS)
        self.none_ = rng.normal(size=N_COMPONENTS)
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float32)

    def transform_text(self, texts):
        none = 0.1 * self.none_
        rows = [sum((self.words_[word] for word in text.split() if word in self.words_), none) for text in texts]
        return np.array(rows, dtype=np.float32)


def draw(ranker, seed):
    """Return pictures, and a sentence of each."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(f"w{word}" for word in rng.choice(N_WORDS, 3)) for _ in range(N_IMAGES)]
    meant = ranker.transform_text([f"{text} thing thing" for text in texts])
    pictures = meant + rng.normal(scale=0.8, size=meant.shape)
    return pictures, [text + n_things * " thing" for text, n_things in zip(texts, rng.choice(4, N_IMAGES), strict=True)]


@pytest.fixture(scope="module")
def calibrated():
    ranker = FakeRanker().fit()
    pictures, texts = draw(ranker, seed=1)
    return Gallery(ranker).add(pictures, ids=range(N_IMAGES)).calibrate(*draw(ranker, seed=0), risk=0.1), texts


def missed(found):
    return 1 - np.mean([row in part.ids for row, part in enumerate(found.split())])


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.2, 0.4])
def test_the_share_of_right_pictures_missed_is_the_risk_set(calibrated, risk):
    gallery, texts = calibrated
    assert missed(gallery.search(texts, cutoff=risk)) == pytest.approx(risk, abs=TOLERANCE)
    # however many pictures there are beside
    few = gallery.search(texts[:300], cutoff=risk, where=np.arange(N_IMAGES) < 300)
    assert missed(few) == pytest.approx(risk, abs=2 * TOLERANCE)


def test_fewer_pictures_are_returned_than_by_the_best_score_for_all(calibrated):
    gallery, texts = calibrated
    found = gallery.search(texts, cutoff="calibrated")
    # by the answers themselves: it misses as many
    pictures, sentences = draw(gallery.model, seed=1)[0], gallery.model.transform_text(texts)
    scores = unit_rows(sentences) @ unit_rows(pictures).T
    flat = np.sort(np.diag(scores))[round(missed(found) * N_IMAGES)]
    assert np.mean(np.diag(scores) < flat) == pytest.approx(missed(found), abs=1e-9)
    assert len(found) < 0.8 * np.count_nonzero(scores >= flat)


def test_nonsense_gets_nothing_and_sense_something(calibrated):
    gallery, texts = calibrated
    assert (
        gallery.search(["asdf qwer", "zzz", "the w3 of an lorem ipsum", "..."], cutoff="calibrated").counts == [0] * 4
    )
    assert np.mean(np.array(gallery.search(texts, cutoff="calibrated").counts) > 0) > 0.88  # the risk is 0.1
    assert len(gallery.search("asdf qwer", k=5)) == 5  # without a cutoff the nearest there are


def test_a_cutoff_goes_with_k_where_and_min_score(calibrated):
    gallery, texts = calibrated
    whole = gallery.search(texts[0], cutoff=0.003)
    assert len(whole) > 10  # more than are found by default
    assert gallery.search(texts[0], k=3, cutoff=0.003).ids == whole.ids[:3]
    assert len(gallery.search(texts[0], cutoff=0.003, min_score=float(whole.scores[4]))) == 5
    some = np.arange(N_IMAGES) % 2 == 0
    assert gallery.search(texts[0], cutoff=0.003, where=some).ids == [row for row in whole.ids if row % 2 == 0]
    assert len(gallery.search(texts[0], cutoff=0.003, where=~some & some)) == 0


def test_a_cutoff_is_saved_with_its_gallery(calibrated, tmp_path):
    gallery, texts = calibrated
    gallery.save(tmp_path / "gallery")
    again = Gallery.load(tmp_path / "gallery", gallery.model)
    for cutoff in ("calibrated", 0.3):
        assert again.search(texts[:50], cutoff=cutoff).rows() == gallery.search(texts[:50], cutoff=cutoff).rows()


def test_what_a_cutoff_cannot_do_is_told(calibrated, toys, trained, fitted):
    gallery, _ = calibrated
    with pytest.raises(ValueError, match="has to be learnt before, on pictures that the model has not been trained"):
        toys.search("red", cutoff="calibrated")
    with pytest.raises(ValueError, match="cutoff must be 'calibrated', a share of right pictures or None, got 'auto'"):
        gallery.search("w1", cutoff="auto")
    for risk in (0, 1.5, True):
        with pytest.raises(ValueError, match="between 0 and 1, got"):
            gallery.search("w1", cutoff=risk)
    with pytest.raises(ValueError, match="calibrated for single sentences, got 'w1 - w2'; use min_score"):
        gallery.search({"text": "w1", "minus": "w2"}, cutoff="calibrated")
    with pytest.raises(ValueError, match=r"a risk of 0\.1 needs at least 9 held-out pictures, got 3"):
        toys.calibrate(np.eye(6)[:3], ["red", "green", "blue"])
    with pytest.raises(ValueError, match="compares by similarity='order'"):
        Gallery(trained["order"]).calibrate(fitted[1], fitted[2])
