import numpy as np
import pytest

from sklearn_mm.sampling import caption_batches

STARTS = np.array([0, 1, 3, 8, 9, 12])  # 1, 2, 5, 1 and 3 captions


def test_every_image_comes_once_with_captions_of_its_own():
    batches = list(caption_batches(STARTS, 2, 2, np.random.default_rng(0)))
    assert sorted(np.concatenate([images for images, _, _ in batches]).tolist()) == [0, 1, 2, 3, 4]
    for images, texts, image_of_text in batches:
        assert len(set(texts.tolist())) == len(texts)
        own = images[image_of_text]
        assert ((STARTS[own] <= texts) & (texts < STARTS[own + 1])).all()
        assert np.bincount(image_of_text).tolist() == np.minimum(np.diff(STARTS)[images], 2).tolist()


def test_all_captions_are_drawn_over_the_epochs():
    rng = np.random.default_rng(0)
    drawn = [text for _ in range(60) for _, texts, _ in caption_batches(STARTS, 3, 1, rng) for text in texts]
    counts = np.bincount(drawn, minlength=12)
    assert counts.min() >= 4  # 60 draws of one in five: far below chance is below 4
    assert counts[0] == counts[8] == 60


@pytest.mark.parametrize(
    ("n_images", "batch_size", "sizes"), [(5, 2, [2, 3]), (4, 2, [2, 2]), (5, 5, [5]), (3, 8, [3])]
)
def test_no_image_is_alone_in_a_batch(n_images, batch_size, sizes):
    batches = list(caption_batches(np.arange(n_images + 1), batch_size, 1, np.random.default_rng(0)))
    assert [len(images) for images, _, _ in batches] == sizes


def test_the_seed_decides():
    a, b, c = (
        np.concatenate([texts for _, texts, _ in caption_batches(STARTS, 2, 1, np.random.default_rng(seed))])
        for seed in (0, 0, 1)
    )
    assert a.tolist() == b.tolist()
    assert a.tolist() != c.tolist()
