"""Fixtures that several test modules share; those the doctests need too are in the conftest of the root."""

import pytest
import torch
from sklearn.utils import Bunch

from sklearn_mm.datasets import make_captioned_shapes
from tests.forks import fork_server


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs CUDA"))


@pytest.fixture(scope="session")
def forked():
    """Return `run` of `tests.forks.fork_server`."""
    with fork_server() as run:
        yield run


@pytest.fixture(scope="session")
def shapes() -> Bunch:
    """Sixty captioned shapes of 32 pixels; read only."""
    data = make_captioned_shapes(60, image_size=32, random_state=0)
    data.images.setflags(write=False)
    return data
