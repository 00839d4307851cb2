"""Processes forked from one that has imported everything: spared what a process of its own takes to start."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONG = 600  # seconds: for machines that do much else

# It must not run a fit that starts threads: no process that is forked would have them.
SERVER = """
    import json, os, runpy, signal, socket, sys, traceback
    import numpy as np
    import torch.distributed, torch.nn.parallel
    import sklearn_mm.annotation
    from sklearn_mm.retrieval import JointEmbeddingRanker

    JointEmbeddingRanker(n_components=4, max_epochs=1, n_jobs=1, device="cpu").fit(np.eye(4), list("abcd"))

    def start(rank, port, script, folder, arguments, n):
        process = os.fork()
        if process:
            return process
        signal.alarm(LONG)
        output = os.open(f"{folder}/output-{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if n > 1:
            world = {"RANK": rank, "WORLD_SIZE": n, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in world.items()})
        sys.argv = [script, folder, *arguments]
        status = 1
        try:
            runpy.run_path(script, run_name="__main__")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    for line in sys.stdin:
        *job, n = json.loads(line)
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        processes = [start(rank, port, *job, n) for rank in range(n)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in processes]), flush=True)
"""


@contextmanager
def fork_server():
    """Yield a function that runs a script in forked processes, and returns their exit statuses and what they wrote.

    `run(script, folder, *arguments, n=1)`: the script finds the folder and the arguments in `sys.argv`. Where there are
    several processes, each knows the others as torchrun would have told it.
    """
    code = textwrap.dedent(SERVER).replace("LONG", str(LONG))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def run(script, folder, *arguments, n=1):
        path = Path(folder) / "forked.py"
        path.write_text(textwrap.dedent(script))
        print(json.dumps([str(path), str(folder), [str(each) for each in arguments], n]), file=server.stdin, flush=True)
        statuses = json.loads(server.stdout.readline())
        return statuses, [(Path(folder) / f"output-{rank}").read_text() for rank in range(n)]

    try:
        yield run
    finally:
        server.communicate()
