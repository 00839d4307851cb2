"""A search that a person has said something about."""

import numpy as np
import pytest

from sklearn_mm.retrieval import Gallery


def test_liked_pictures_draw_others_like_them_nearer(toys):
    # "a red" says nothing of shapes
    assert toys.refine("red", liked=["red-star"], k=1).ids == ["red-star"]
    found = toys.refine("red", liked=["green-star", "blue-star"], k=3)
    assert found.ids[0] == "red-star"
    assert toys.refine("red", liked="blue-star", where="box != 'c'", k=1).ids[0].startswith("red")


def test_disliked_pictures_are_not_found_again_and_push_those_like_them_away(toys):
    found = toys.refine("green", disliked=["green-star", "red-star"], k=9 - 2)
    assert not {"green-star", "red-star"} & set(found.ids)
    assert found.ids[:2] == ["green-dot", "green-box"]
    assert found.ids[-1] == "blue-star"


def test_without_an_opinion_it_is_the_search_itself(fitted):
    gallery = Gallery(fitted[0]).add(fitted[1], ids=range(96))
    assert gallery.refine("a red dot", k=9).rows() == gallery.search("a red dot", k=9).rows()


def test_opinions_on_ten_pictures_find_more_of_the_right_ones_among_the_others(word_ranker):
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(20):
        # Pictures of one kind have more in common than the word for it says.
        kind = rng.integers(3, size=300)
        features = np.eye(3)[kind] + rng.normal(scale=0.7, size=(300, 3))
        looks = rng.normal(size=(3, 3))[kind] + rng.normal(scale=0.5, size=(300, 3))
        gallery = Gallery(word_ranker).add(np.column_stack([features, looks]), ids=range(300))
        found = gallery.search("red", k=300).ids
        seen, right = found[:10], set(np.flatnonzero(kind == 0).tolist())
        liked, disliked = [each for each in seen if each in right], [each for each in seen if each not in right]
        again = [each for each in gallery.refine("red", liked, disliked, k=300 - len(disliked)).ids if each not in seen]
        gains.append(len(right & set(again[:20])) - len(right & set(found[10:30])))
    assert np.mean(gains) > 1  # of twenty; 1.5 with this seed


def test_opinions_that_make_no_sense_are_refused(toys, trained, fitted):
    with pytest.raises(KeyError, match="no id 'purple'"):
        toys.refine("red", liked=["purple"])
    with pytest.raises(ValueError, match="'red-dot' is liked and disliked"):
        toys.refine("red", liked=["red-dot"], disliked=["red-dot", "red-box"])
    with pytest.raises(ValueError, match="expected one query to refine, got a list of 2"):
        toys.refine(["red", "green"])
    with pytest.raises(ValueError, match="refining adds cosines, and the model compares by 'order'"):
        Gallery(trained["order"]).add(fitted[1], ids=range(96)).refine("red", liked=[3])
