"""The workers of Ray write what one process writes, byte for byte."""

import os
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_mm.exceptions import ImageReadError, ImageReadWarning
from sklearn_mm.scaling import Manifest, _ray, embed_shards, fit_shards
from tests.scaling.pictures import embedding, encoded, write_folder, write_tars

N, BAD = 23, (0, 7, 20, 21, 22)
GIB = 2**30


def files_of(sink):
    """Return the content of all files but those that name the time or the machine."""
    return {path.name: path.read_bytes() for path in sink.iterdir() if path.name != ".lock"}


class Refuses(FunctionTransformer):
    """Fails at the pictures of one shard."""

    def transform(self, X):
        if "017.png" in X[0] or "015.png" in X[0]:
            raise KeyError("no answer", os.getpid())
        return np.ones((len(X), 1))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.filterwarnings("default")  # of what Ray and its libraries call outdated in each other
class TestTwoWorkers:
    @pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
    @pytest.mark.parametrize("kind", ["folder", "archives"])
    def test_shards_are_those_of_one_process(self, tmp_path, kind):
        transformer = embedding().fit([encoded(number) for number in range(N)])
        source = write_folder(tmp_path / "photos", N, BAD)
        if kind == "archives":
            transformer = make_pipeline(transformer, StandardScaler().fit(np.eye(20)))
            source = f"{write_tars(tmp_path / 'tars', N, 3, BAD)}/*.tar"
        one = embed_shards(transformer, source, tmp_path / "one", shard_size=4)
        with pytest.warns(ImageReadWarning, match="5 of 23"):
            two = embed_shards(transformer, source, tmp_path / "two", shard_size=4, engine="ray")
        assert two.shards == one.shards
        assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
        assert len(two.failures) == len(BAD)

    def test_statistics_are_the_same_bits(self, tmp_path):
        photos = write_folder(tmp_path / "photos", N)
        one = fit_shards(embedding(), photos, tmp_path / "one", shard_size=4)
        two = fit_shards(embedding(), photos, tmp_path / "two", shard_size=4, engine="ray")
        np.testing.assert_array_equal(two.mean_, one.mean_)
        np.testing.assert_array_equal(two.scale_, one.scale_)

    def test_what_one_engine_began_the_other_ends(self, tmp_path):
        folder = write_folder(tmp_path / "photos", N)
        with pytest.raises(KeyError, match="no answer") as refused:
            embed_shards(Refuses(), folder, tmp_path / "sink", shard_size=5, engine="ray")
        assert refused.value.args[1] != os.getpid()
        assert not Manifest.open(tmp_path / "sink").complete
        with pytest.raises(KeyError, match="no answer") as refused:
            embed_shards(Refuses(), folder, tmp_path / "sink", shard_size=5)
        assert refused.value.args[1] == os.getpid()
        done = sorted(path.name for path in (tmp_path / "sink" / "records").iterdir())
        assert "000003.json" not in done
        assert done

    def test_nothing_readable_is_an_error_there_too(self, tmp_path):
        fitted = embedding().fit([encoded(number) for number in range(N)])
        folder = write_folder(tmp_path / "photos", 3, range(3))
        with pytest.raises(ImageReadError, match="not one of 3 pictures"):
            embed_shards(fitted, folder, tmp_path / "sink", engine="ray")


def test_without_ray_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-mm\[ray\]', or use engine='local'"):
        embed_shards(FunctionTransformer(len), ["a text"], tmp_path / "sink", engine="ray")


def test_an_actor_answers_with_what_was_done_or_with_the_error_itself(tmp_path, monkeypatch, ray_here):
    monkeypatch.chdir(tmp_path)
    attempts = ray_here.remote(num_cpus=0)(_ray._Attempts).remote(1)
    actor = _ray._Actor(pickle.dumps(sometimes), str(tmp_path), torch.get_num_threads(), attempts)
    done, failed = (pickle.loads(answer) for answer in actor({"number": np.array([3, 7])})["answer"])
    assert done == (9, None)
    assert failed[0] is None
    assert isinstance(failed[1], KeyError)


def test_a_shard_that_kills_every_process_ends_the_run(tmp_path, ray_here):
    attempts = ray_here.remote(num_cpus=0)(_ray._Attempts).remote(1)

    def answer():
        actor = _ray._Actor(pickle.dumps(sometimes), str(tmp_path), torch.get_num_threads(), attempts)
        return pickle.loads(actor({"number": np.array([3])})["answer"][0])

    for _ in range(4):  # as if each had died before it could answer
        assert answer() == (9, None)
    assert "shard 3 was begun 4 times, and its process died" in str(answer()[1])


def test_processes_that_die_as_they_start_end_the_run(tmp_path, ray_here):
    attempts = ray_here.remote(num_cpus=0)(_ray._Attempts).remote(1)
    for _ in range(4):
        _ray._Actor(pickle.dumps(sometimes), str(tmp_path), torch.get_num_threads(), attempts)
    with pytest.raises(RuntimeError, match="4 processes died as they started"):
        _ray._Actor(pickle.dumps(sometimes), str(tmp_path), torch.get_num_threads(), attempts)


class Remote:
    """An object whose methods are called by ``remote``, as those of an actor of Ray are."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return SimpleNamespace(remote=getattr(self._inner, name))


class InThisProcess:
    """What is used of Ray Data, run here: so that the way of a shard is tested where no cluster is started."""

    cloudpickle = pickle

    def __init__(self):
        self.data, self.blocks, self.resources = self, [], {}
        self.context = SimpleNamespace(enable_progress_bars=True, print_on_execution_start=True)
        self.DataContext = SimpleNamespace(get_current=lambda: self.context)

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0, "memory": 16.0 * GIB}}, {"Alive": False, "Resources": {}}]

    def ActorPoolStrategy(self, **options):
        return options

    def from_items(self, items, override_num_blocks):
        self.blocks.append(override_num_blocks)
        self.items = items
        return self

    def remote(self, num_cpus):
        assert num_cpus == 0  # what only counts takes no core from who works
        return lambda made: SimpleNamespace(remote=lambda *args: Remote(made(*args)))

    def get(self, answer):
        return answer

    def map_batches(self, actor, *, fn_constructor_args, batch_size, compute, **resources):
        assert batch_size == 1
        self.actor, self.resources = actor(*fn_constructor_args), {**compute, **resources}
        return self

    def iter_rows(self):
        assert not self.context.enable_progress_bars
        for item in self.items:
            (answer,) = self.actor({"number": np.array([item["number"]])})["answer"]
            yield {"answer": answer}


@pytest.fixture
def ray_here(monkeypatch):
    made = InThisProcess()
    monkeypatch.setattr(_ray, "_import_ray", lambda: made)
    return made


@pytest.mark.filterwarnings("ignore::sklearn_mm.exceptions.ImageReadWarning")
def test_the_way_over_ray_changes_no_byte(tmp_path, ray_here):
    fitted = embedding().fit([encoded(number) for number in range(N)])
    folder = write_folder(tmp_path / "photos", N, BAD)
    one = embed_shards(fitted, folder, tmp_path / "one", shard_size=4)
    two = embed_shards(fitted, folder, tmp_path / "two", shard_size=4, engine="ray")
    assert two.shards == one.shards
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert ray_here.resources["size"] == 2  # one core for each, as the embedding says
    assert (ray_here.resources["num_cpus"], ray_here.resources["num_gpus"]) == (1, 0)
    assert ray_here.context.enable_progress_bars


def test_ray_is_given_some_shards_at_a_time_and_an_error_is_raised_as_it_is(ray_here, monkeypatch):
    monkeypatch.setattr(_ray, "_QUEUED", 4)
    monkeypatch.setattr(_ray, "_QUEUED_PER_ACTOR", 1)
    done = []
    with pytest.raises(KeyError, match="no answer"):
        done.extend(_ray.run_on_ray(sometimes, range(1, 12), {}))
    assert ray_here.blocks == [4, 4]
    assert list(_ray.run_on_ray(sometimes, range(8, 10), {})) == [64, 81]
    assert list(_ray.run_on_ray(sometimes, [], {})) == []


def sometimes(number):
    if number == 7:
        raise KeyError("no answer")
    return number**2


@pytest.mark.parametrize(
    ("nodes", "n_bytes", "n_jobs", "device", "plan"),
    [
        # as many actors as cores, where memory holds them
        ([{"CPU": 8, "memory": 32 * GIB}], 0, None, "auto", (8, 1, 0)),
        # where it does not, more cores for each
        ([{"CPU": 8, "memory": 8 * GIB}], 0, None, "auto", (4, 2, 0)),
        ([{"CPU": 8, "memory": 8 * GIB}], 2 * GIB, None, "auto", (1, 8, 0)),
        ([{"CPU": 2, "memory": GIB}], 0, None, "auto", (1, 2, 0)),
        # the transformer may say how many cores it wants, up to what a machine has
        ([{"CPU": 8, "memory": 32 * GIB}], 0, 4, "auto", (2, 4, 0)),
        ([{"CPU": 8, "memory": 32 * GIB}], 0, 16, "auto", (1, 8, 0)),
        # the smallest machine decides on the cores of an actor
        ([{"CPU": 16, "memory": 64 * GIB}, {"CPU": 4, "memory": 4 * GIB}, {}], 0, None, "auto", (18, 1, 0)),
        # a GPU for each actor, and its share of the cores to decode with
        ([{"CPU": 32, "GPU": 4, "memory": 64 * GIB}, {"CPU": 8}], 0, None, "auto", (4, 8, 1)),
        ([{"CPU": 32, "GPU": 4, "memory": 128 * GIB}], 0, None, "cpu", (32, 1, 0)),
    ],
)
def test_machines_are_shared_out_by_what_they_have(nodes, n_bytes, n_jobs, device, plan):
    assert _ray.plan_actors(nodes, n_bytes, n_jobs, device) == _ray.ActorPlan(*plan)
