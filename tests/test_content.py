import copy
import functools
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_mm._content import FilesIn, UndigestibleError, attributes_digest, content_digest, weights_digest

SHARED = np.arange(3.0)


def with_explicit_zero():
    matrix = sparse.csr_array(np.array([[0, 1, 0, 2]], dtype=np.float32))
    matrix.data[0] = 0
    return matrix


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        (np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(2, 6)[:, ::2] // 2),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        ([SHARED, SHARED], [SHARED, SHARED.copy()]),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        ({"a", "b", "c"}, {"c", "b", "a"}),
        ((1, 2), [1, 2]),
        (np.float64(0.5), 0.5),
        (np.array(["a", "bc"]), np.array(["a", "bc"], dtype=object)),
        (with_explicit_zero(), sparse.coo_array(np.array([[0, 0, 0, 2]], dtype=np.float32))),
        (Path("a") / "b", "a/b"),
        (make_pipeline(StandardScaler(), memory="a", verbose=True), make_pipeline(StandardScaler())),
        (pd.DataFrame({"a": [1.0], "b": [2]}), pd.DataFrame({"b": [2], "a": [1.0]})[["a", "b"]]),
        (torch.ones(2, 3).T, torch.ones(3, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_equal_is_digested_alike(one, same):
    assert content_digest(one) == content_digest(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(6), np.zeros((2, 3))),
        (np.zeros(2, np.float32), np.zeros(2, np.int32)),
        (["ab"], ["a", "b"]),
        ([["a"], "b"], [["a", "b"]]),
        (1, "1"),
        (1, True),
        (b"1", "1"),
        (None, "None"),
        ({"a": 1}, {"a": 2}),
        (torch.zeros(2), torch.zeros(2, requires_grad=True)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
        (lambda x: x + 1, lambda x: x + 2),
        (functools.partial(sorted, reverse=True), functools.partial(sorted)),
        (np.log, np.exp),
        (Ridge(alpha=1), Ridge(alpha=2)),
        (make_pipeline(StandardScaler()), make_pipeline(StandardScaler().fit([[0.0], [1.0]]))),
        (nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Sequential(nn.Tanh(), nn.ReLU())),
        (np.random.RandomState(0), np.random.RandomState(1)),
        (pd.Series(["a"]), pd.Series(["b"])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_differs_is_digested_apart(one, other):
    assert content_digest(one) != content_digest(other)
    assert content_digest(one) == content_digest(copy.deepcopy(one))


def test_what_refers_to_itself_is_digested():
    loop = [1]
    loop.append(loop)
    assert content_digest(loop) == content_digest(copy.deepcopy(loop)) != content_digest([1, [1]])


def test_files_count_by_their_content_where_names_are_files(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"content")
    other.write_bytes(b"content")
    alike = {content_digest(FilesIn([name])) for name in (one, str(one), other, b"content")}
    assert len(alike) == 1
    frames = {content_digest(FilesIn(pd.DataFrame({"path": [str(name)]}))) for name in (one, other)}
    assert len(frames) == 1
    assert content_digest([str(one)]) != content_digest([str(other)])  # a text is a text
    other.write_bytes(b"CONTENT")
    assert content_digest(FilesIn([str(other)])) not in alike
    assert content_digest(other) != content_digest(one)
    missing = tmp_path / "missing"
    assert content_digest(FilesIn([missing])) != content_digest(FilesIn([tmp_path / "another"]))


def test_what_cannot_be_looked_into_is_named_with_its_place():
    network = nn.Sequential(nn.ReLU(), nn.Tanh())
    network[1].lock = Lock()
    with pytest.raises(UndigestibleError, match=r"^1\.lock: a lock cannot be told by its content"):
        attributes_digest(network)


def test_attributes_are_told_without_weights_and_with_buffers_that_no_state_dict_holds():
    network = nn.BatchNorm2d(2)
    network.register_buffer("places", torch.zeros(2), persistent=False)
    before, weights = attributes_digest(network), weights_digest(network.state_dict())
    network.weight.data += 1
    network.train(False)
    assert attributes_digest(network) == before
    assert weights_digest(network.state_dict()) != weights
    network.places += 1
    assert attributes_digest(network) != before


SCRIPT = """
import numpy as np, torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn_mm._content import content_digest
vectorizer = TfidfVectorizer(stop_words=["a"]).fit(["a red dot", "a blue square"])
value = [{"b", "a", "c"}, vectorizer, np.arange(3), len, torch.relu]
"""


@pytest.mark.slow
def test_digests_are_the_same_in_every_process(forked, tmp_path):
    here = {}
    exec(SCRIPT, here)
    script = f"{SCRIPT}\nprint(content_digest(value))"
    _, (output,) = forked(script, tmp_path)
    assert output.strip() == content_digest(here["value"])
