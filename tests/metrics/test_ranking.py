import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_mm import _threads
from sklearn_mm.metrics import _counting, hit_at_k, mean_rank, recall_at_k, retrieval_ranks
from sklearn_mm.metrics._similarity import TIE_TOLERANCE, resolve_similarity
from tests import reference

SIMILARITIES = {"cosine": reference.cosine, "order": reference.order}
similarity_names = pytest.mark.parametrize("similarity", SIMILARITIES)


@pytest.fixture(params=["whole", "small blocks", "three threads"])
def blocks(request, monkeypatch):
    """Run with the usual blocks, which hold all of a small example, with blocks that cut it up, and in threads."""
    if request.param != "whole":
        monkeypatch.setattr(_counting, "_N_IMAGES", 3)
        monkeypatch.setattr(_counting, "_N_TEXTS", 4)
        monkeypatch.setattr(_counting, "_TILE", 8)
    if request.param == "three threads":
        monkeypatch.setattr(_counting, "_WORTH_A_THREAD", 1)
        monkeypatch.setattr(_counting, "n_workers", lambda: 3)
        monkeypatch.setattr(_threads, "n_workers", lambda: 3)


@st.composite
def embedded_pairs(draw, groups=False):
    """Images, texts of few different values (so that ties abound), and which text belongs to which image."""
    n_images, n_more, d = draw(st.integers(1, 7)), draw(st.integers(0, 8)), draw(st.integers(1, 3))
    n_texts = n_images + n_more
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    images = rng.integers(-1, 2, (n_images, d)) * rng.choice([0.5, 1.0, 3.0])
    texts = rng.integers(-1, 2, (n_texts, d)) * 1.0
    owner = rng.permutation(np.concatenate([np.arange(n_images), rng.integers(0, n_images, n_more)]))
    label = rng.integers(0, 4, n_images)
    return (images, texts, owner, label) if groups else (images, texts, owner)


def _naive(images, texts, owner, direction, similarity, label=None, offsets=None):
    """Counts (n_query, 3): negatives better, negatives tied, positives tied."""
    scores = reference.score_matrix(images, texts, SIMILARITIES[similarity])
    if offsets is not None:
        image_offset, text_offset = (list(map(float, each)) for each in offsets)
        scores = [
            [score - (text_offset[j] if direction == "i2t" else image_offset[i]) for j, score in enumerate(row)]
            for i, row in enumerate(scores)
        ]
    label = np.arange(len(images)) if label is None else label
    if direction == "t2i":
        return [
            reference.tie_counts(
                [row[j] for row in scores], {i}, TIE_TOLERANCE, set(np.flatnonzero(label == label[i])) - {i}
            )
            for j, i in enumerate(owner)
        ]
    return [
        reference.tie_counts(
            scores[i],
            set(np.flatnonzero(owner == i)),
            TIE_TOLERANCE,
            set(np.flatnonzero((label[owner] == label[i]) & (owner != i))),
        )
        for i in range(len(images))
    ]


def _counts(ranks):
    return np.column_stack([ranks.n_better, ranks.n_tied, ranks.n_tied_positives])


@similarity_names
@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_counts_are_those_of_slow_loops(similarity, direction, blocks):
    @settings(max_examples=60, deadline=None)
    @given(embedded_pairs(groups=True), st.booleans())
    def check(pairs, grouped):
        images, texts, owner, label = pairs
        groups = label if grouped else None
        ranks = retrieval_ranks(images, texts, owner, direction=direction, similarity=similarity, groups=groups)
        assert _counts(ranks).tolist() == [
            list(row) for row in _naive(images, texts, owner, direction, similarity, groups)
        ]

    check()


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_what_is_taken_off_items_is_that_of_slow_loops(direction, blocks):
    @settings(max_examples=60, deadline=None)
    @given(embedded_pairs(groups=True), st.integers(0, 2**32 - 1))
    def check(pairs, seed):
        images, texts, owner, label = pairs
        rng = np.random.default_rng(seed)
        # Of few values, among them differences of cosines, so that ties abound.
        offsets = [rng.choice(np.float32([0, 0.25, 0.5, 1]), size=len(rows)) for rows in (images, texts)]
        ranks = retrieval_ranks(
            images,
            texts,
            owner,
            direction=direction,
            groups=label,
            image_offset=offsets[0],
            text_offset=offsets[1],
        )
        naive = _naive(images, texts, owner, direction, "cosine", label, offsets)
        assert _counts(ranks).tolist() == [list(row) for row in naive]

    check()


def test_equal_texts_share_what_is_taken_off_the_first():
    images, texts = np.eye(2), np.array([[1.0, 0.2], [1.0, 0.2], [0.1, 1.0]])
    report = {
        offset: np.asarray(
            retrieval_ranks(images, texts, [0, 1, 1], wording=["a", "a", "b"], text_offset=[0.0, offset, 0.5])
        ).tolist()
        for offset in (0.0, 9.0)
    }
    assert report[0.0] == report[9.0]


def test_offsets_that_do_not_fit_are_refused():
    images, owner = np.eye(3), [0, 1, 2]
    for offset in ([0.0, 1.0], [[0.0], [1.0], [2.0]], [0.0, np.nan, 1.0]):
        with pytest.raises(ValueError, match="image_offset must hold one finite number for each of the 3 images"):
            retrieval_ranks(images, images, owner, image_offset=offset)
    with pytest.raises(ValueError, match="are taken off cosines"):
        retrieval_ranks(images, images, owner, similarity="order", text_offset=np.zeros(3))


@similarity_names
def test_recall_is_that_of_slow_loops(similarity, blocks):
    @settings(max_examples=60, deadline=None)
    @given(embedded_pairs(), st.integers(1, 6))
    def check(pairs, k):
        images, texts, owner = pairs
        scores = reference.score_matrix(images, texts, SIMILARITIES[similarity])
        ranks = retrieval_ranks(images, texts, owner, similarity=similarity, every_positive=True)
        truth = [
            reference.recall_by_all_orders(scores[i], np.flatnonzero(owner == i), k, TIE_TOLERANCE)
            for i in range(len(images))
        ]
        assert recall_at_k(ranks, k) == pytest.approx(np.mean(truth), abs=1e-12)
        np.testing.assert_array_equal(
            _counts(ranks), _counts(retrieval_ranks(images, texts, owner, similarity=similarity))
        )

    check()


@similarity_names
@settings(max_examples=60, deadline=None)
@given(embedded_pairs(groups=True), st.randoms(use_true_random=False))
def test_the_order_of_images_and_of_texts_does_not_matter(similarity, pairs, random):
    images, texts, owner, label = pairs
    image_order = np.array(random.sample(range(len(images)), len(images)))
    text_order = np.array(random.sample(range(len(texts)), len(texts)))
    for direction, order in (("i2t", image_order), ("t2i", text_order)):
        options = {"direction": direction, "similarity": similarity}
        ranks = retrieval_ranks(images, texts, owner, groups=label, **options)
        shuffled = retrieval_ranks(
            images[image_order],
            texts[text_order],
            np.argsort(image_order)[owner[text_order]],
            groups=label[image_order],
            **options,
        )
        np.testing.assert_array_equal(_counts(shuffled), _counts(ranks)[order])


def test_one_positive_each_makes_recall_a_hit():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 20, 5))
    ranks = retrieval_ranks(images, texts, np.arange(20), every_positive=True)
    backwards = retrieval_ranks(images, texts, np.arange(20), direction="t2i")
    for k in (1, 3, 20):
        assert recall_at_k(ranks, k) == pytest.approx(hit_at_k(ranks, k))
        assert recall_at_k(backwards, k) == pytest.approx(hit_at_k(backwards, k))


@similarity_names
@pytest.mark.parametrize(("value", "d"), [(0.1, 1000), (0.1, 1023), (1.0, 1023), (0.0, 1000)])
def test_a_constant_model_scores_exactly_as_chance(similarity, value, d):
    # Sums of d equal numbers are where rounding in float32 piles up most: 1e-5 between two kernels of a BLAS.
    n_images, n_captions = (601 if similarity == "cosine" else 61), 5
    images = np.full((n_images, d), value, dtype=np.float32)
    texts = np.full((n_images * n_captions, d), value, dtype=np.float32)
    owner = np.repeat(np.arange(n_images), n_captions)
    found = retrieval_ranks(images, texts, owner, similarity=similarity, every_positive=True)
    back = retrieval_ranks(images, texts, owner, direction="t2i", similarity=similarity)
    for k in (1, 10):
        chance = float(reference.chance_of_hit(len(texts), n_captions, k))
        assert hit_at_k(found, k) == pytest.approx(chance, abs=1e-12)
        assert recall_at_k(found, k) == pytest.approx(k / len(texts), abs=1e-12)
        assert hit_at_k(back, k) == pytest.approx(k / n_images, abs=1e-12)
    assert mean_rank(back) == (n_images + 1) / 2


def test_a_model_blind_to_pictures_scores_as_chance_on_average():
    rng = np.random.default_rng(0)
    images = np.tile(rng.normal(size=64), (50, 1))
    texts = rng.normal(size=(50, 64))
    back = retrieval_ranks(images, texts, np.arange(50), direction="t2i")
    assert hit_at_k(back, 1) == pytest.approx(1 / 50)
    # Every image puts the texts in one order, so each rank occurs once.
    assert sorted(np.asarray(retrieval_ranks(images, texts, np.arange(50)))) == list(range(50))


@similarity_names
@pytest.mark.parametrize("d", [999, 1024])
def test_equal_embeddings_tie_in_any_place(similarity, d):
    rng = np.random.default_rng(d)
    images = rng.normal(size=(40, d)).astype(np.float32)
    texts = np.repeat(rng.normal(size=(7, d)), 601, axis=0).astype(np.float32)
    owner = rng.permutation(np.concatenate([np.arange(40), rng.integers(0, 40, len(texts) - 40)]))
    ranks = retrieval_ranks(images, texts, owner, similarity=similarity)
    clones = np.arange(len(texts)) // 601
    for i in range(40):
        per_clone = np.bincount(clones[owner == i], minlength=7)  # positives of each of the 7 different texts
        assert (ranks.n_tied + ranks.n_tied_positives)[i] == 601
        assert ranks.n_tied_positives[i] in per_clone


def test_scores_apart_by_rounding_tie_and_others_do_not():
    image = np.array([[1.0, 0.0]])
    angles = np.array([0.5, 0.5 + 1e-7, 0.5 - 1e-7, 0.5 - 1e-5, 0.5 + 1e-5])
    texts = np.column_stack([np.cos(angles), np.sin(angles)])
    distractors = np.array([[0.0, 1.0]] * 4)
    ranks = retrieval_ranks(
        np.concatenate([image, distractors]), texts, np.arange(5), direction="i2t", similarity="cosine"
    )
    assert (ranks.n_better[0], ranks.n_tied[0]) == (1, 2)


def test_scores_that_float32_cannot_tell_apart_are_ranked_by_float64():
    # 500 texts whose scores differ by 4e-6 each, less than the bound on float32's rounding at d=1024.
    rng = np.random.default_rng(0)
    image = rng.normal(size=1024)
    image /= np.linalg.norm(image)
    across = rng.normal(size=1024)
    across -= across @ image * image
    across /= np.linalg.norm(across)
    cosines = 0.5 - 4e-6 * np.arange(500)
    texts = cosines[:, None] * image + np.sqrt(1 - cosines**2)[:, None] * across
    images = np.concatenate([image[None], np.tile(-across, (499, 1))])
    for place in (0, 17, 499):
        owner = np.r_[np.arange(1, place + 1), 0, np.arange(place + 1, 500)]
        ranks = retrieval_ranks(images, texts, owner)
        assert (ranks.n_better[0], ranks.n_tied[0]) == (place, 0)


def test_order_similarity_puts_the_caption_above_the_image_both_ways():
    # A caption that asks for nothing holds of every image; one that asks for more than the image has does not.
    images = np.array([[2.0, 2.0], [2.0, 0.0]])
    texts = np.array([[1.0, 1.0], [1.0, 0.0]])
    i2t = retrieval_ranks(images, texts, [0, 1], similarity="order")
    t2i = retrieval_ranks(images, texts, [0, 1], direction="t2i", similarity="order")
    assert i2t.n_tied.tolist() == [1, 0]  # both captions hold of image 0; only the second of image 1
    assert t2i.n_tied.tolist() == [0, 1]
    assert i2t.n_better.tolist() == t2i.n_better.tolist() == [0, 0]


def test_order_similarity_does_not_depend_on_the_unit():
    rng = np.random.default_rng(0)
    images, texts = np.abs(rng.normal(size=(2, 30, 16)))
    truth = _counts(retrieval_ranks(images, texts, np.arange(30), similarity="order"))
    for unit in (1e-18, 1e-3, 1e30):
        ranks = retrieval_ranks(images * unit, texts * unit, np.arange(30), similarity="order")
        np.testing.assert_array_equal(_counts(ranks), truth)


def test_cosine_similarity_ignores_length_and_gives_zero_vectors_zero():
    images = np.array([[3.0, 0.0], [0.0, 0.0]])
    texts = np.array([[0.1, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    ranks = retrieval_ranks(images, texts, [0, 1, 1])
    assert ranks.n_better.tolist() == [0, 0]
    assert ranks.n_tied.tolist() == [0, 1]
    assert ranks.n_tied_positives.tolist() == [1, 2]


def test_items_of_the_same_group_are_neither_right_nor_wrong():
    images = np.eye(3)
    texts = np.array([[0.1, 1, 0], [1, 0.1, 0], [0.0, 0.0, 1]])  # texts of images 0 and 1 mixed up
    apart = retrieval_ranks(images, texts, [0, 1, 2])
    together = retrieval_ranks(images, texts, [0, 1, 2], groups=["dog", "dog", "cat"])
    assert np.asarray(apart).tolist() == [1, 1, 0]
    assert np.asarray(together).tolist() == [0, 0, 0]


@similarity_names
def test_float32_blocks_err_less_than_their_bound(similarity):
    rng = np.random.default_rng(0)
    for d in (3, 1000):
        image = np.abs(rng.normal(size=(50, d))).astype(np.float32)
        text = np.abs(rng.normal(size=(300, d))).astype(np.float32)
        text[:50] = image
        scores = resolve_similarity(similarity, image, text)
        exact = scores.exact_block(slice(0, 50), slice(0, 300))
        error = np.abs(scores.block(slice(0, 50), slice(0, 300)) - exact)
        assert (error <= scores.block_error(exact)).all()


def test_ranks_do_not_need_the_matrix_of_all_scores():
    import tracemalloc

    rng = np.random.default_rng(0)
    images = rng.normal(size=(3000, 8)).astype(np.float32)
    texts = rng.normal(size=(30_000, 8)).astype(np.float32)
    tracemalloc.start()
    retrieval_ranks(images, texts, np.arange(30_000) % 3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 30_000 * 4 / 5


def _call(images=None, texts=None, owner=(0, 1, 2), **options):
    images = np.eye(3) if images is None else images
    texts = np.eye(3) if texts is None else texts
    return retrieval_ranks(images, texts, owner, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.eye(3)[0]}, r"image_embedding must be .* got shape \(3,\)"),
        ({"texts": np.empty((0, 3))}, "text_embedding must be a non-empty array"),
        ({"texts": np.eye(3)[:, :2]}, "one space, got image_embedding of 3 components .* of 2"),
        ({"images": np.array([[1, 0, 0], [0, np.nan, 0], [0, 0, 1]])}, "image_embedding holds NaN.* row 1 and 0"),
        ({"texts": np.eye(3) * 1e300}, "text_embedding holds NaN, infinity or a value beyond float32 in row 0"),
        ({"owner": [0, 1]}, r"one int for each of the 3 texts, got shape \(2,\)"),
        ({"owner": [0.0, 1.0, 2.0]}, "dtype float64"),
        ({"owner": [0, 1, 3]}, "rows of the 3 images, got 3 for text 2"),
        ({"owner": [-1, 1, 2]}, "rows of the 3 images, got -1 for text 0"),
        ({"owner": [0, 0, 2]}, "never names image 1 nor 0 other images"),
        ({"direction": "both"}, "direction must be 'i2t' or 't2i', got 'both'"),
        ({"similarity": "euclid"}, r"similarity must be one of \['cosine', 'order', 'order-root'\], got 'euclid'"),
        ({"groups": [0, 1]}, "groups must hold one entry for each of the 3 rows"),
    ],
)
def test_input_that_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        _call(**arguments)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int8])
def test_embeddings_of_any_dtype_are_ranked(dtype):
    ranks = _call(images=np.eye(3, dtype=dtype), texts=np.eye(3, dtype=dtype))
    assert np.asarray(ranks).tolist() == [0, 0, 0]
