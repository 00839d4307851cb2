import numpy as np
import pytest

COLOURS, SHAPES = ("red", "green", "blue", "black"), ("dot", "box", "star")


@pytest.fixture(scope="module")
def data():
    """96 images whose noisy features say colour and shape, with two captions each."""
    rng = np.random.default_rng(0)
    colour, shape = rng.integers(4, size=96), rng.integers(3, size=96)
    features = np.concatenate([np.eye(4)[colour], np.eye(3)[shape], rng.normal(size=(96, 5))], axis=1)
    captions = [
        [f"a {COLOURS[c]} {SHAPES[s]} number {i}", f"{SHAPES[s]} in {COLOURS[c]}"]
        for i, (c, s) in enumerate(zip(colour, shape, strict=True))
    ]
    return features.astype(np.float32) + rng.normal(0, 0.05, features.shape).astype(np.float32), captions
