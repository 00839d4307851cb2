"""What the blocked instance loss takes at COCO's size, against torch's cross-entropy: peak memory and time.

    python tests/benchmarks/bench_instance_loss.py [--classes 113287] [--components 1024] [--rows 1024] [--turns 3]

Each turn is a forward and a backward pass in a process of its own, the two in turns. Memory is the rise of the peak
over what stood before: features and classifier. The gradient of the classifier, which any loss needs, is in it.
"""

import argparse
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch.nn import functional

from sklearn_mm.losses import instance_loss


def whole(features, instance, classifier):
    """Hold the logits of all classes at once."""
    return functional.cross_entropy(features @ classifier.T, instance, reduction="none")


LOSSES = {"blocked": instance_loss, "torch's cross-entropy": whole}


def measure(name, n_classes, n_components, n_rows):
    """Return the seconds of a pass, and by how many bytes the peak rose."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(n_rows, n_components)).requires_grad_()
    classifier = torch.randn(n_classes, n_components).requires_grad_()
    instance = torch.randint(n_classes, (n_rows,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    LOSSES[name](features, instance, classifier).mean().backward()
    seconds = time.process_time() - start
    return seconds, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main():
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=113_287)
    parser.add_argument("--components", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    results = {name: [] for name in LOSSES}
    for _ in range(args.turns):
        for name, turns in results.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                turns.append(pool.submit(measure, name, args.classes, args.components, args.rows).result())
    gradient = 4 * args.classes * args.components / 1e6
    print(f"{args.rows} rows, {args.classes} classes of {args.components}: the gradient takes {gradient:.0f} MB")
    for name, turns in results.items():
        seconds, peak = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{name:<24}{seconds:7.1f} s of processor time{peak / 1e6 - gradient:8.0f} MB beside the gradient")


if __name__ == "__main__":
    main()
