import builtins
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_mm.datasets import make_captioned_shapes
from sklearn_mm.display import AnnotationGridDisplay
from sklearn_mm.display._matplotlib import BLUE, GREEN, ORANGE
from sklearn_mm.exceptions import ImageReadError

NAMES = ["dog", "man", "sea", "sky"]
TRUE = [["dog", "sea"], ["man"], [], ["sky", "sea", "man"]]
PREDICTED = [["sea", "sky"], ["man"], ["dog"], []]
TOLD_APART = [
    [("sea", "right"), ("sky", "wrong"), ("dog", "missed")],
    [("man", "right")],
    [("dog", "wrong")],
    [("sky", "missed"), ("sea", "missed"), ("man", "missed")],
]


@pytest.fixture
def pictures():
    return [np.full((30, 40, 3), 60 * number, dtype=np.uint8) for number in range(4)]


def _mark(rows):
    return np.array([[name in row for name in NAMES] for row in rows], dtype=int)


def _written(display):
    return [[text.get_text() for text in text_ax.texts] for _, text_ax in display.axes_]


def test_each_picture_stands_beside_its_labels(pictures):
    display = AnnotationGridDisplay.from_predictions(pictures, TRUE, PREDICTED)
    assert display.axes_.shape == (4, 2)
    for row, (picture_ax, _) in enumerate(display.axes_):
        (drawn,) = picture_ax.get_images()
        assert drawn.get_array()[100, 100, 0] == 60 * row
    assert _written(display) == [
        ["2 predicted, 2 true", "✓ sea", "✗ sky", "– dog"],  # noqa: RUF001
        ["1 predicted, 1 true", "✓ man"],
        ["1 predicted, 0 true", "✗ dog"],
        ["0 predicted, 3 true", "– sky", "– sea", "– man"],  # noqa: RUF001
    ]
    display.figure_.canvas.draw()


def test_right_wrong_and_missed_labels_differ_in_mark_and_colour(pictures):
    display = AnnotationGridDisplay.from_predictions(pictures, TRUE, PREDICTED)
    _, *labels = display.axes_[0, 1].texts
    (legend,) = display.figure_.legends
    assert [text.get_text() for text in legend.get_texts()] == ["✓ right", "✗ wrong", "– missed"]  # noqa: RUF001
    for right, wrong, missed in (labels, legend.get_texts()):
        assert same_color(right.get_color(), GREEN)
        assert right.get_bbox_patch() is None
        assert same_color(wrong.get_bbox_patch().get_facecolor(), ORANGE)
        assert same_color(missed.get_color(), BLUE)
        assert missed.get_bbox_patch().get_facecolor()[3] == 0  # a frame alone
    assert [display.labels_of(row) for row in range(4)] == TOLD_APART


@pytest.mark.parametrize(
    "form", [np.array, lambda Y: Y.tolist(), sparse.csr_array, sparse.coo_matrix, lambda Y: Y.astype(float)]
)
def test_labels_come_as_indicators_too(pictures, form):
    display = AnnotationGridDisplay.from_predictions(
        pictures, form(_mark(TRUE)), form(_mark(PREDICTED)), label_names=NAMES
    )
    for row, told in enumerate(TOLD_APART):
        assert sorted(display.labels_of(row)) == sorted(told)
    numbers = AnnotationGridDisplay.from_predictions(pictures, None, form(_mark(PREDICTED)))
    assert numbers.labels_of(0) == [("2", "predicted"), ("3", "predicted")]


def test_an_indicator_and_lists_may_be_mixed_and_unknown_truth_is_not_true(pictures):
    truth = _mark(TRUE).astype(float)
    truth[1, 1] = np.nan
    rows = np.empty(4, dtype=object)
    rows[:] = PREDICTED
    display = AnnotationGridDisplay.from_predictions(pictures, truth, rows, label_names=NAMES)
    assert display.labels_of(1) == [("man", "wrong")]
    assert sorted(display.labels_of(0)) == sorted(TOLD_APART[0])


def test_a_label_is_right_whatever_the_form_of_its_accents(pictures):
    true, predicted = [["for\u00eat"]] * 4, [["fore\u0302t"]] * 4
    display = AnnotationGridDisplay.from_predictions(pictures, true, predicted)
    assert [display.labels_of(row) for row in range(4)] == [[("for\u00eat", "right")]] * 4


def test_without_truth_nothing_is_told_apart(pictures):
    display = AnnotationGridDisplay.from_predictions(pictures, None, PREDICTED)
    assert _written(display)[0] == ["2 predicted", "sea", "sky"]
    assert not display.figure_.legends


def test_an_estimator_annotates_features_and_shows_pictures(tmp_path):
    shapes = make_captioned_shapes(40, image_size=16, random_state=0)
    X = shapes.images.reshape(40, -1) / 255
    model = OneVsRestClassifier(LogisticRegression()).fit(X, shapes.target)
    display = AnnotationGridDisplay.from_estimator(
        model, X[:5], shapes.tags[:5], images=shapes.images[:5], label_names=shapes.label_names, n_columns=2
    )
    truth = [set(row) for row in shapes.tags[:5]]
    for row, own in enumerate(truth):
        told = display.labels_of(row)
        assert {label for label, kind in told if kind != "wrong"} == own
        assert {label for label, kind in told if kind != "missed"} == set(
            shapes.label_names[model.predict(X[[row]])[0].astype(bool)]
        )
    to_rows = FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255)
    pipe = make_pipeline(to_rows, OneVsRestClassifier(LogisticRegression())).fit(shapes.images, shapes.target)
    alone = AnnotationGridDisplay.from_estimator(pipe, shapes.images[:3], shapes.target[:3])
    assert alone.axes_.shape == (3, 2)
    assert alone.labels_of(0)[0][0].isdigit()  # the classes of an indicator are its columns


def test_a_table_of_pictures_and_tags_needs_to_be_told_the_pictures(pictures):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"tags": [["a"]] * 4, "image": pictures})
    model = FunctionTransformer(lambda X: X)
    model.predict = lambda X: PREDICTED
    with pytest.raises(
        ValueError, match=r"X is a table of 2 columns; pass the pictures too, as in images=X\['image'\]"
    ):
        AnnotationGridDisplay.from_estimator(model, table, TRUE)
    display = AnnotationGridDisplay.from_estimator(model, table, TRUE, images=table["image"])
    assert display.labels_of(0) == TOLD_APART[0]


def test_many_and_long_labels_stay_beside_the_picture(pictures):
    many = [[f"label {number}" for number in range(12)], ["a very long label that nobody can read here"], [], []]
    display = AnnotationGridDisplay.from_predictions(pictures, many, many)
    first, second, *_ = _written(display)
    assert len(first) == 9
    assert first[-1] == "and 5 more"
    assert second[1].startswith("✓ a very long label")
    assert second[1].endswith("…")


@pytest.mark.parametrize("label", ["W" * 40, "i" * 80, "many words of one label that nobody can read"])
def test_no_text_is_cut_off_or_runs_into_another(pictures, label):
    many = [[f"{number} {label}" for number in range(12)]] * 2
    display = AnnotationGridDisplay.from_predictions(pictures[:2], [TRUE[3]] * 2, many, n_columns=2)
    display.figure_.canvas.draw()
    renderer, width = display.figure_.canvas.get_renderer(), display.figure_.bbox.width
    (legend,) = display.figure_.legends
    for number, (picture_ax, text_ax) in enumerate(display.axes_):
        boxes = [text.get_window_extent(renderer) for text in text_ax.texts]
        right = width if number % 2 else display.axes_[number + 1, 0].get_window_extent(renderer).x0
        assert all(picture_ax.get_window_extent(renderer).x1 < box.x0 < box.x1 <= right for box in boxes)
        assert all(lower.y1 <= upper.y0 + 2 for upper, lower in pairwise(boxes))
        assert legend.get_window_extent(renderer).y1 <= boxes[-1].y0


def test_pictures_fill_rows_and_empty_places_stay_empty(pictures):
    display = AnnotationGridDisplay.from_predictions(pictures, TRUE, PREDICTED, n_columns=3)
    assert len(display.figure_.axes) == 12
    assert sum(bool(ax.get_images()) for ax in display.figure_.axes) == 4
    narrow = AnnotationGridDisplay.from_predictions(pictures[:1], TRUE[:1], PREDICTED[:1], n_columns=3)
    assert len(narrow.figure_.axes) == 2


def test_it_draws_into_a_figure_of_ours_and_again(pictures):
    display = AnnotationGridDisplay.from_predictions(pictures[:1], TRUE[:1], PREDICTED[:1])
    figure = plt.figure()
    assert display.plot(figure=figure) is display
    assert display.figure_ is figure


def test_dollars_are_no_formula(pictures):
    display = AnnotationGridDisplay.from_predictions(pictures[:1], [["$5 or $6"]], [["$5 or $6"]])
    display.figure_.canvas.draw()
    assert _written(display)[0][1] == "✓ $5 or $6"


def test_wrong_input_is_explained(pictures, tmp_path):
    draw = AnnotationGridDisplay.from_predictions
    with pytest.raises(ValueError, match="Y_pred must have a row for each of the 4 images, got 3"):
        draw(pictures, TRUE, PREDICTED[:3])
    with pytest.raises(ValueError, match="Y_true must have a row for each of the 4 images, got 2"):
        draw(pictures, _mark(TRUE)[:2], PREDICTED)
    with pytest.raises(TypeError, match="Y_pred must hold a list of labels for each picture, got 'dog' in row 1"):
        draw(pictures, None, [["dog"], "dog", [], []])
    with pytest.raises(ValueError, match="n_columns must be a positive int, got 0"):
        draw(pictures, TRUE, PREDICTED, n_columns=0)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    good = tmp_path / "good.png"
    Image.new("RGB", (4, 4)).save(good)
    with pytest.raises(ImageReadError, match=r"row 1 of images .*broken\.jpg"):
        draw([good, broken], TRUE[:2], PREDICTED[:2])


def test_without_matplotlib_it_says_what_to_install(pictures, monkeypatch):
    display = AnnotationGridDisplay.from_predictions(pictures, TRUE, PREDICTED)
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"AnnotationGridDisplay needs matplotlib: pip install sklearn-mm\[plot\]"):
        display.plot()
