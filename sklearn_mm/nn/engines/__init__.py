"""What runs a frozen network whose layers are read: torch as it is, or a graph of it in a faster form."""

from sklearn_mm.nn.engines._engines import (
    ENGINES,
    EngineError,
    build_engine,
    check_engine,
    chosen_engine,
    engine_identity,
    settled_engine,
)

__all__ = [
    "ENGINES",
    "EngineError",
    "build_engine",
    "check_engine",
    "chosen_engine",
    "engine_identity",
    "settled_engine",
]
