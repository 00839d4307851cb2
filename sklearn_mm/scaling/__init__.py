"""More pictures than fit into memory, or on one machine: shards on disk, from runs that go on where they stopped."""

from sklearn_mm.scaling._capacity import Capacity, Rates, capacity
from sklearn_mm.scaling._embed import embed_shards
from sklearn_mm.scaling._fit import fit_shards
from sklearn_mm.scaling._manifest import Manifest
from sklearn_mm.scaling._parquet import ParquetColumn

__all__ = ["Capacity", "Manifest", "ParquetColumn", "Rates", "capacity", "embed_shards", "fit_shards"]
