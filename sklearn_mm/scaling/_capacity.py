"""What a number of pictures takes: hours, bytes and machines, from rates that were measured."""

import math
from dataclasses import dataclass, fields

__all__ = ["Capacity", "Rates", "Step", "capacity"]

_CODE_BYTES = 64 + 8  # of a vector in faiss' "IVF...,PQ64": its code and its number
_N_QUERIES = 1000
_N_SAMPLE = 100_000  # pictures that tell means and deviations of activations to a third of a percent
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Rates:
    """What one machine does in a second, and what one picture takes.

    Parameters
    ----------
    decode : float
        Pictures read and decoded a second, by all cores.
    network : float
        Pictures a second through the network alone, the engine and the precision being what they will be.
    project : float
        Vectors a second through the ranker.
    scores : float
        Vectors compared with queries a second, a thousand queries being asked together.
    picture_bytes : float
        Of a picture's file.
    stored_bytes : float
        Of a picture's vector in its shard, compressed.
    n_components : int
        Of the joint space; float32.

    Examples
    --------
    >>> from sklearn_mm.scaling import Rates
    >>> rates = Rates(
    ...     decode=300, network=50, project=2000, scores=8e7, picture_bytes=1e5, stored_bytes=5e3, n_components=1024
    ... )
    >>> rates.network
    50
    """

    decode: float
    network: float
    project: float
    scores: float
    picture_bytes: float
    stored_bytes: float
    n_components: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, int | float) and value > 0):
                raise ValueError(f"{field.name} must be a number above 0, got {value!r}")


@dataclass(frozen=True)
class Step:
    """One step of the way from pictures to search.

    Attributes
    ----------
    name : str
    engine : str
        What does it.
    hours : float or None
        On one machine; None where no rate is known.
    machines : int
        So that it ends in time, and what it holds in memory fits.
    n_bytes : float
        Read, written or held.
    driver : str
        What its cost grows with.
    """

    name: str
    engine: str
    hours: float | None
    machines: int
    n_bytes: float
    driver: str


@dataclass(frozen=True)
class Capacity:
    """What a number of pictures takes; as text it is a table.

    Parameters
    ----------
    n_pictures : int
    steps : tuple of Step
        In their order. Each has a `name`, an `engine`, `hours` on one machine, `machines`, `n_bytes` and the `driver`
        of its cost.

    See Also
    --------
    capacity : Computes it.

    Examples
    --------
    >>> from sklearn_mm.scaling import Rates, capacity
    >>> rates = Rates(
    ...     decode=300, network=50, project=2000, scores=8e7, picture_bytes=1e5, stored_bytes=5e3, n_components=1024
    ... )
    >>> [step.name for step in capacity(1_000_000, rates).steps][:2]
    ['statistics of a sample', 'decode and embed']
    """

    n_pictures: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        head = ("step", "engine", "hours on one", "machines", "bytes", "driven by")
        rows = [
            (
                step.name,
                step.engine,
                "-" if step.hours is None else _rounded(step.hours),
                f"{step.machines:,}",
                _bytes(step.n_bytes),
                step.driver,
            )
            for step in self.steps
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join([f"{self.n_pictures:,} pictures", *(line.rstrip() for line in lines)])


def capacity(n_pictures: int, rates: Rates, *, hours: float = 24.0, memory_bytes: float = 64e9) -> Capacity:
    """Tell what a number of pictures takes, from the rates of one machine.

    Parameters
    ----------
    n_pictures : int
    rates : Rates
        Of one machine.
    hours : float, default=24.0
        In which each step is to end; it decides on the number of machines.
    memory_bytes : float, default=64e9
        Of one machine, for the vectors that are searched.

    Returns
    -------
    Capacity
        Its steps, which `print` shows as a table.

    Raises
    ------
    ValueError
        A number is not above 0.

    See Also
    --------
    embed_shards : Does the second step.

    Notes
    -----
    Machines are taken to be alike and to share nothing but the files, which is what shards are for: twice as many need
    half as long. Reading, decoding and the network overlap, so that the slowest of them decides. What is read over a
    wire has to come at ``rates.network * rates.picture_bytes`` a second and machine.

    Examples
    --------
    >>> from sklearn_mm.scaling import Rates, capacity
    >>> rates = Rates(
    ...     decode=300, network=50, project=2000, scores=8e7, picture_bytes=1e5, stored_bytes=5e3, n_components=1024
    ... )
    >>> print(capacity(10_000_000, rates))
    10,000,000 pictures
    step                        engine                       hours on one  machines  bytes   driven by
    statistics of a sample      fit_shards, local            0.56          1         10 GB   the network
    decode and embed            embed_shards, ray            56            3         1.0 TB  the network
    store the embedding         Parquet, zstd                -             1         50 GB   columns and their entropy
    project to the joint space  ranker over shards           1.4           1         41 GB   columns times components
    1,000 searches, exact       ExactIndex in memory         0.035         1         41 GB   vectors times components
    1,000 searches, nearly so   FaissIndex("IVF65536,PQ64")  -             1         720 MB  vectors, 72 bytes each
    """
    for name, value in (("n_pictures", n_pictures), ("hours", hours), ("memory_bytes", memory_bytes)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")
    embedding = min(rates.decode, rates.network)
    driver = "the network" if rates.network <= rates.decode else "reading and decoding"
    vector_bytes = 4.0 * rates.n_components
    n_sample = min(n_pictures, _N_SAMPLE)

    def step(name: str, engine: str, seconds: float | None, n_bytes: float, driver: str, held: float = 0.0) -> Step:
        needed = None if seconds is None else seconds / 3600
        machines = max(math.ceil((needed or 0) / hours), math.ceil(held / memory_bytes), 1)
        return Step(name, engine, needed, machines, n_bytes, driver)

    n_hours = n_pictures / embedding / 3600
    engine = "local" if n_hours <= hours else "ray"
    vectors, codes = n_pictures * vector_bytes, float(n_pictures * _CODE_BYTES)
    # faiss' own advice: some 16 times the root of the number of vectors, a power of 2
    n_lists = 2 ** round(math.log2(16 * math.sqrt(n_pictures)))
    steps = (
        step(
            "statistics of a sample",
            "fit_shards, local",
            n_sample / embedding,
            n_sample * rates.picture_bytes,
            driver,
        ),
        step(
            "decode and embed",
            f"embed_shards, {engine}",
            n_pictures / embedding,
            n_pictures * rates.picture_bytes,
            driver,
        ),
        step(
            "store the embedding", "Parquet, zstd", None, n_pictures * rates.stored_bytes, "columns and their entropy"
        ),
        step(
            "project to the joint space",
            "ranker over shards",
            n_pictures / rates.project,
            vectors,
            "columns times components",
        ),
        step(
            f"{_N_QUERIES:,} searches, exact",
            "ExactIndex in memory",
            _N_QUERIES * n_pictures / rates.scores,
            vectors,
            "vectors times components",
            vectors,
        ),
        step(
            f"{_N_QUERIES:,} searches, nearly so",
            f'FaissIndex("IVF{n_lists},PQ64")',
            None,
            codes,
            f"vectors, {_CODE_BYTES} bytes each",
            codes,
        ),
    )
    return Capacity(n_pictures, steps)


def _rounded(number: float) -> str:
    """Return a number with two digits, without an exponent."""
    if number >= 99.5:
        return f"{float(f'{number:.2g}'):,.0f}"
    return f"{number:.2g}"


def _bytes(number: float) -> str:
    power = min(int(math.log10(max(number, 1)) // 3), len(_UNITS) - 1)
    value = number / 1000**power
    return f"{value:.0f} {_UNITS[power]}" if value >= 9.95 else f"{value:.1f} {_UNITS[power]}"
