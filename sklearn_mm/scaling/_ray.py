"""Shards done by the workers of Ray, by way of Ray Data."""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch

__all__ = ["ActorPlan", "plan_actors", "run_on_ray"]

Done = TypeVar("Done")

_ACTOR_BYTES = 2 * 2**30  # torch, a batch in a network, and the pictures and vectors of some blocks
_COPIES = 3  # of the transformer in an actor: its pickle, its parameters, and the network made of them
_QUEUED, _QUEUED_PER_ACTOR = 256, 32  # shards that Ray is given at once: its scheduler slows down with what waits
_RETRIES = 3  # of a shard whose process dies: one that kills every process that touches it ends the run


@dataclass(frozen=True)
class ActorPlan:
    """How many actors work at the same time, and what each has for itself."""

    n_actors: int
    n_cpus: int
    n_gpus: int


def plan_actors(nodes: Sequence[Mapping[str, float]], n_bytes: int, n_jobs: int | None, device: str) -> ActorPlan:
    """Share out the machines of a cluster.

    Parameters
    ----------
    nodes : sequence of mappings
        The resources of each machine, as Ray calls them: "CPU", "GPU", "memory".
    n_bytes : int
        Size of the transformer.
    n_jobs : int or None
        Cores for each actor, where the transformer says so; by default those of a machine are shared out among as many
        actors as its memory holds.
    device : str
        Of the transformer; "auto" and "cuda" take a GPU for each actor, where there are some.

    Returns
    -------
    ActorPlan
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
    if with_gpus and device.partition(":")[0] in ("auto", "cuda"):
        n_cpus = n_jobs or min(int(node.get("CPU", 1) // node["GPU"]) for node in with_gpus)
        return ActorPlan(sum(int(node["GPU"]) for node in with_gpus), max(n_cpus, 1), 1)
    computing = [node for node in nodes if node.get("CPU", 0) >= 1]
    need = _ACTOR_BYTES + _COPIES * n_bytes

    def n_fitting(node: Mapping[str, float]) -> int:
        # one at least, whatever Ray has been told about memory: it is no reservation
        return max(int(min(node["CPU"], node.get("memory", need) // need)), 1)

    n_cpus = n_jobs or min((int(node["CPU"]) // n_fitting(node) for node in computing), default=1)
    n_cpus = min([n_cpus, *(int(node["CPU"]) for node in computing)])
    n_actors = sum(min(int(node["CPU"]) // n_cpus, n_fitting(node)) for node in computing)
    return ActorPlan(max(n_actors, 1), max(n_cpus, 1), 0)


class _Attempts:
    """Counts, in an actor of its own, how often each shard was begun: Ray begins it again for ever.

    Its options for that, `max_restarts` and `max_task_retries`, are going from Ray Data.
    """

    def __init__(self, n_actors: int) -> None:
        self._most_starts = n_actors * (1 + _RETRIES)
        self._n_starts = 0
        self._n_begun: dict[int, int] = {}

    def start(self) -> str:
        """Note that an actor starts; return what is wrong, if none of so many has come to begin a shard."""
        self._n_starts += 1
        return "" if self._n_starts <= self._most_starts else f"{self._n_starts - 1} processes died as they started"

    def begin(self, number: int) -> str:
        """Note that a shard is begun; return what is wrong, if it has been too often."""
        self._n_starts = 0
        n_begun = self._n_begun[number] = self._n_begun.get(number, 0) + 1
        return "" if n_begun <= 1 + _RETRIES else f"shard {number} was begun {n_begun - 1} times, and its process died"


class _Actor:
    """Does shards in a process of Ray. What comes back is small: the vectors are in their files by then."""

    def __init__(self, pickled: bytes, folder: str, n_cpus: int, attempts: Any) -> None:
        self._ray, self._attempts = _import_ray(), attempts
        if wrong := self._ray.get(attempts.start.remote()):
            raise RuntimeError(wrong)
        with suppress(OSError):  # relative paths are the caller's, on a machine that has the folder
            os.chdir(folder)
        torch.set_num_threads(n_cpus)
        self._work: Callable[[int], Any] = pickle.loads(pickled)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"answer": [self._answer(int(number)) for number in batch["number"]]}

    def _answer(self, number: int) -> bytes:
        try:
            if wrong := self._ray.get(self._attempts.begin.remote(number)):
                raise RuntimeError(f"{wrong}; it may need more memory than there is, or a picture crash its reader")
            return pickle.dumps((self._work(number), None))
        except Exception as error:  # raised again by the caller, which Ray would show it in a wrapping of its own
            try:
                return pickle.dumps((None, error))
            except Exception:
                return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def run_on_ray(work: Callable[[int], Done], numbers: Sequence[int], parameters: Mapping[str, Any]) -> Iterator[Done]:
    """Yield what the work makes of each number, in the order in which they are done.

    Parameters
    ----------
    work : callable
        It is pickled, also if it is of the caller's script.
    numbers : sequence of int
    parameters : mapping
        Of the estimator in it: its `n_jobs` and `device` decide on the actors.

    Raises
    ------
    ImportError
        Ray Data is not installed.
    """
    ray = _import_ray()
    if not numbers:
        return
    with _cluster(ray):
        pickled = ray.cloudpickle.dumps(work)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        n_jobs = parameters.get("n_jobs")
        device = str(parameters.get("device", "auto"))
        plan = plan_actors(nodes, len(pickled), n_jobs if isinstance(n_jobs, int) and n_jobs > 0 else None, device)
        window = max(_QUEUED, _QUEUED_PER_ACTOR * plan.n_actors)
        for start in range(0, len(numbers), window):
            for answer in _answers(ray, pickled, numbers[start : start + window], plan):
                done, error = pickle.loads(answer)
                if error is not None:
                    raise error
                yield done


def _answers(ray: ModuleType, pickled: bytes, numbers: Sequence[int], plan: ActorPlan) -> Iterator[bytes]:
    # A block is the number of one shard. Rows of pictures or of vectors never pass through Ray: that is what takes
    # several times their memory, and fills the queues before actors that are slower than what comes before them.
    rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    n_actors = min(plan.n_actors, len(numbers))
    attempts = ray.remote(num_cpus=0)(_Attempts).remote(n_actors)
    strategy = ray.data.ActorPoolStrategy(
        size=n_actors,
        max_tasks_in_flight_per_actor=1,  # a shard that waits for a busy actor is one that an idle one does not do
    )
    answers = rows.map_batches(
        _Actor,
        fn_constructor_args=(pickled, str(Path.cwd()), plan.n_cpus, attempts),
        batch_size=1,
        compute=strategy,
        num_cpus=plan.n_cpus,
        num_gpus=plan.n_gpus,
    )
    for row in answers.iter_rows():
        yield row["answer"]


@contextmanager
def _cluster(ray: ModuleType) -> Iterator[None]:
    """Use the cluster that the caller is connected to, or one of this machine that ends with the block."""
    is_own = not ray.is_initialized()
    if is_own:
        ray.init(include_dashboard=False)
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    # bars of blocks would be beside that of rows
    context.enable_progress_bars, context.print_on_execution_start = False, False
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before
        if is_own:
            ray.shutdown()


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            "engine='ray' needs Ray Data: pip install 'sklearn-mm[ray]', or use engine='local', which needs no more "
            "than is here"
        ) from error
    return ray
