import builtins

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.display import RetrievalGridDisplay
from sklearn_mm.display._matplotlib import GREEN
from sklearn_mm.exceptions import ImageReadError
from tests.metrics.linear_ranker import LinearRanker

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "black": (5, 5, 5)}
INDICES = [[2, 0], [1, 3]]
TEXTS = ["something blue", "something green"]


@pytest.fixture
def pictures():
    return [np.full((30, 40, 3), colour, dtype=np.uint8) for colour in COLOURS.values()]


def _middle(ax):
    """The colour in the middle of the picture that is drawn."""
    (drawn,) = ax.get_images()
    pixels = drawn.get_array()
    return tuple(int(x) for x in pixels[pixels.shape[0] // 2, pixels.shape[1] // 2])


def _is_marked(ax):
    ticks = [text.get_text() for text in ax.texts] == ["✓"]
    frame = same_color(ax.spines["left"].get_edgecolor(), GREEN)
    assert ticks == frame  # never by colour alone
    return ticks


def test_each_row_shows_its_sentence_and_the_pictures_found_in_order(pictures):
    display = RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES)
    assert display.axes_.shape == (2, 3)
    assert [row[0].texts[0].get_text() for row in display.axes_] == TEXTS
    colours = list(COLOURS.values())
    assert [[_middle(ax) for ax in row[1:]] for row in display.axes_] == [
        [colours[index] for index in row] for row in INDICES
    ]
    display.figure_.canvas.draw()


@pytest.mark.parametrize("form", ["paths", "PIL", "stacked", "floats"])
def test_pictures_come_in_any_form(pictures, form, tmp_path):
    if form == "paths":
        images = []
        for row, picture in enumerate(pictures):
            images.append(tmp_path / f"{row}.png")
            Image.fromarray(picture).save(images[-1])
    else:
        images = {
            "PIL": [Image.fromarray(picture) for picture in pictures],
            "stacked": np.stack(pictures),
            "floats": np.stack(pictures).astype(np.float32) / 255,
        }[form]
    display = RetrievalGridDisplay.from_predictions(TEXTS, images, INDICES)
    assert _middle(display.axes_[0, 1]) == COLOURS["blue"]


@pytest.mark.parametrize("correct", [[2, 3], [[2], {3, 1}], np.array([2, 3])])
def test_right_pictures_are_marked_by_frame_and_tick(pictures, correct):
    display = RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES, correct=correct)
    marked = [[_is_marked(ax) for ax in row[1:]] for row in display.axes_]
    assert marked[0] == [True, False]
    assert marked[1][1]
    assert marked[1][0] == (isinstance(correct, list) and correct[1] == {3, 1})


def test_nothing_is_marked_where_nothing_is_known(pictures):
    display = RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES)
    assert not any(_is_marked(ax) for ax in display.axes_[:, 1:].ravel())


def test_scores_stand_below_the_pictures(pictures):
    scores = [[0.75, 0.5], [0.25, -1.0]]
    display = RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES, scores=scores)
    assert [[ax.get_xlabel() for ax in row[1:]] for row in display.axes_] == [["0.75", "0.50"], ["0.25", "-1.00"]]


def test_places_where_nothing_was_found_stay_empty(pictures):
    display = RetrievalGridDisplay.from_predictions(TEXTS, pictures, [[2, -1], [1, 3]], correct=[-1, 0])
    assert not display.axes_[0, 2].axison
    assert not display.axes_[0, 2].get_images()
    assert not display.axes_[0, 2].texts


def test_long_sentences_wrap_and_end_and_dollars_are_dollars(pictures):
    long = "the price rose from $5 to $6 " * 20
    display = RetrievalGridDisplay.from_predictions([long, "a"], pictures, INDICES)
    lines = display.axes_[0, 0].texts[0].get_text().split("\n")
    assert len(lines) == 6
    assert max(map(len, lines)) <= 30
    assert lines[-1].endswith("…")
    display.figure_.canvas.draw()  # would fail on a formula that does not end
    extent = display.axes_[0, 0].texts[0].get_window_extent()
    assert extent.x0 > 0
    assert extent.x1 < display.axes_[0, 1].get_window_extent().x0 + 1


def test_an_existing_figure_can_be_drawn_into(pictures):
    figure = plt.figure(figsize=(6, 4))
    left, right = figure.subfigures(1, 2)
    display = RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES).plot(figure=right)
    assert display.figure_ is right
    assert len(right.axes) == 6
    assert not left.axes


@pytest.fixture
def ranker_and_pictures():
    """A ranker that knows colours by name, and pictures it was not fitted on."""
    rng = np.random.default_rng(0)
    names = [name for name in COLOURS for _ in range(6)]
    features = np.array([COLOURS[name] for name in names]) + rng.normal(scale=8, size=(24, 3))
    ranker = make_pipeline(FunctionTransformer(_mean_colour), LinearRanker(alpha=0.1))
    ranker.fit([_plain(colour) for colour in features], [f"a {name} thing" for name in names])
    return ranker, [_plain(COLOURS[name]) for name in ("black", "blue", "green", "red", "blue")]


def _plain(colour):
    return np.full((9, 8, 3), np.clip(colour, 0, 255), dtype=np.uint8)


def _mean_colour(X):
    return np.array([picture.mean(axis=(0, 1)) for picture in X])


def test_a_pipeline_searches_the_pictures_it_is_given(ranker_and_pictures):
    ranker, pictures = ranker_and_pictures
    display = RetrievalGridDisplay.from_estimator(
        ranker, ["blue thing", "a red one"], pictures, correct=[[1, 4], 3], k=3
    )
    assert display.indices[0, :2].tolist() == [1, 4]  # equal scores: the lower row first
    assert display.indices[1, 0] == 3
    assert (np.diff(display.scores, axis=1) <= 0).all()
    assert [_is_marked(ax) for ax in display.axes_[0, 1:]] == [True, True, False]


def test_the_gallery_of_the_ranker_can_be_searched_instead(ranker_and_pictures):
    ranker, pictures = ranker_and_pictures
    ranker[-1].set_gallery(images=_mean_colour(pictures[::-1]))
    display = RetrievalGridDisplay.from_estimator(ranker, ["red thing"], pictures[::-1], k=2, use_gallery=True)
    scores, indices = ranker[-1].search_images(["red thing"], 2)
    np.testing.assert_array_equal(display.indices, indices)
    np.testing.assert_array_equal(display.scores, scores.astype(float))
    with pytest.raises(ValueError, match=r"rows of the 2 images, got \d; pass the pictures of the gallery"):
        RetrievalGridDisplay.from_estimator(ranker, ["green thing"], pictures[:2], k=2, use_gallery=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "one"}, TypeError, "single string"),
        ({"indices": [[0, 1]]}, ValueError, r"shape \(n_query, k\) for 2 texts, got shape \(1, 2\)"),
        ({"indices": [[0.0], [1.0]]}, ValueError, "dtype float64"),
        ({"indices": [[0], [4]]}, ValueError, "rows of the 4 images, got 4"),
        ({"scores": [[1.0], [2.0]]}, ValueError, r"scores must have the shape of indices, \(2, 2\)"),
        ({"correct": [1]}, ValueError, "one entry for each of the 2 texts, got 1"),
        ({"correct": [[True, False], [False, True]]}, TypeError, "rows of images .* got True"),
        ({"correct": [1, "2"]}, TypeError, "rows of images .* got '2'"),
    ],
)
def test_input_that_does_not_fit_is_named(pictures, arguments, error, message):
    with pytest.raises(error, match=message):
        RetrievalGridDisplay.from_predictions(**({"texts": TEXTS, "images": pictures, "indices": INDICES} | arguments))


def test_a_picture_that_cannot_be_read_is_named(pictures, tmp_path):
    pictures[3] = tmp_path / "lost.png"
    with pytest.raises(ImageReadError, match=r"row 3 of images .*lost\.png.*: no such file"):
        RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES)


def test_k_beyond_the_pictures_is_named(ranker_and_pictures):
    ranker, pictures = ranker_and_pictures
    with pytest.raises(ValueError, match="k=6 is larger than the gallery, which has 5"):
        RetrievalGridDisplay.from_estimator(ranker, ["blue thing"], pictures, k=6)


def test_without_matplotlib_the_way_to_it_is_told(pictures, monkeypatch):
    real_import = builtins.__import__

    def no_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(ImportError, match=r"RetrievalGridDisplay needs matplotlib: pip install sklearn-mm\[plot\]"):
        RetrievalGridDisplay.from_predictions(TEXTS, pictures, INDICES)
