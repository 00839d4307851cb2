"""A cluster of two workers on this machine, for the tests that need one."""

import gc
import warnings
from pathlib import Path

import pytest

N_TRIES = 3  # Ray gives its processes 30 seconds to start, however busy the machine is


@pytest.fixture(scope="session")
def ray_cluster():
    ray = pytest.importorskip("ray")
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}  # where the estimators of the tests are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Ray and its libraries call outdated in each other
        for n_left in reversed(range(N_TRIES)):
            try:
                ray.init(
                    num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment}
                )
                break
            except Exception as error:  # it has no class of its own
                if "timed out during startup" not in str(error) or not n_left:
                    raise
                ray.shutdown()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray does not wait for the processes that it ends
        ray.shutdown()
        gc.collect()
