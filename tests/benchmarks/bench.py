"""What the scripts here share: turns taken in one process, ratios of wall time against a target, a file of the result.

import bench  # the folder of a script that runs is on the path

options = bench.parser(__doc__).parse_args()  # has --turns and --out; add yours before parsing
records = []
for n_threads in bench.thread_counts():  # all, and one
    with bench.threads(n_threads):
        seconds = bench.interleave({"faiss": other, "ours": ours}, options.turns)
    records.append(
        bench.report("top 10", seconds, against="faiss", targets={"ours": (">=", 1.0)}, compare="rate")
    )
bench.save(records, options.out)
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")  # what decides about speed


def parser(doc):
    """Return an argument parser that has `--turns` and `--out`, for a script whose docstring is `doc`."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--turns", type=int, default=5, help="how often each is timed")
    options.add_argument("--out", type=Path, help="a JSON file to write the numbers to")
    options.add_argument("--threads", type=int, nargs="+", action=_Threads, help="counts to measure with; all and one")
    return options


_CHOSEN = []  # thread counts of the command line


class _Threads(argparse.Action):
    """Notes the counts, and gives so many threads to what does not go through counts of its own."""

    def __call__(self, parser, namespace, values, option_string=None):
        _CHOSEN[:] = values
        torch.set_num_threads(max(values))
        threadpool_limits(max(values))
        setattr(namespace, self.dest, values)


def thread_counts():
    """Return the thread counts to measure with: those of the command line, or all that there are, and one."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _CHOSEN or sorted({n_cores, 1}, reverse=True)


@contextlib.contextmanager
def threads(n_threads):
    """Give torch, BLAS and OpenMP so many threads."""
    before = torch.get_num_threads()
    with threadpool_limits(n_threads):
        torch.set_num_threads(n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _wall_time(run):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(runs, n_turns, n_warm_up=1):
    """Time functions by turns, so that whatever else the machine does falls on all of them.

    `runs` maps names to functions without arguments. Who goes first changes from turn to turn, since the first one
    finds the caches as the last one left them. Returns the wall times in seconds: a list of `n_turns` for each name.
    """
    names = list(runs)
    seconds = {name: [] for name in names}
    for turn in range(-n_warm_up, n_turns):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            taken = _wall_time(runs[name])
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def machine():
    """Return what the numbers depend on: processor, its instructions, threads, versions, how busy it was."""
    info, cpu, flags = Path("/proc/cpuinfo"), platform.processor(), []
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        cpu, words = fields.get("model name", cpu), fields.get("flags", "").split()
        flags = [flag for flag in FLAGS if flag in words]
    return {
        "cpu": cpu,
        "flags": flags,
        "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def report(title, seconds, *, against, targets=None, compare="time", **facts):
    """Print the median of each beside its ratio to `against` and its target, and return all that as a dict.

    `targets` maps a name to `("<=", 1.2)` or `(">=", 0.8)`. The ratio is of wall times (smaller is faster) or, with
    `compare="rate"`, of rates (larger is faster): the median over turns of the ratio of each turn. `facts`, such as
    `n_images=128` or `bytes_beyond_inputs=...`, are kept beside the numbers.
    """
    n_threads, targets = torch.get_num_threads(), targets or {}
    where = machine()
    print(f"{title}\n  {where['cpu']} ({' '.join(where['flags'])}), {n_threads} threads, load {where['load']:.1f}")
    rows = {}
    for name, taken in seconds.items():
        pairs = zip(taken, seconds[against], strict=True)
        ratios = [other / one if compare == "rate" else one / other for one, other in pairs]
        ratio = statistics.median(ratios)
        sign, bound = targets.get(name, (None, None))
        met = None if sign is None else bool(ratio <= bound if sign == "<=" else ratio >= bound)
        rows[name] = {
            "seconds": taken,
            "median_s": statistics.median(taken),
            "ratio": ratio,
            "target": None if sign is None else f"{sign} {bound}",
            "met": met,
        }
        goal = "" if sign is None else f"   target {sign} {bound}: {'met' if met else 'MISSED'}"
        print(
            f"  {name:36s} {rows[name]['median_s']:9.4f} s   {ratio:6.3f} times the {compare} of {against} "
            f"(per turn {min(ratios):.3f} to {max(ratios):.3f}){goal}"
        )
    if facts:
        print("  " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    return {
        "title": title,
        "against": against,
        "compare": compare,
        "n_threads": n_threads,
        "machine": where,
        "results": rows,
        "facts": facts,
    }


def save(records, out):
    """Write what `report` returned, several times maybe, to a JSON file; nothing if `out` is None."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(list(records), indent=2) + "\n")
