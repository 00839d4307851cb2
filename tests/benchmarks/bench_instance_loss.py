"""What the instance loss takes at COCO's size, against torch's cross-entropy: peak memory and wall time.

    python tests/benchmarks/bench_instance_loss.py --turns 5 --out instance_loss.json

A turn is a forward and a backward pass of the mean loss of some rows. Memory is measured in a process of its own each:
the rise of the peak over what stood before, features and classifier. The gradient of the classifier, which any loss
needs, is in it.
"""

import resource
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import bench
import torch
from torch.nn import functional

from sklearn_mm.losses import instance_loss, mean_instance_loss


def whole(features, instance, classifier):
    """Hold the logits of all classes at once."""
    return functional.cross_entropy(features @ classifier.T, instance)


def twice(features, instance, classifier):
    """Compute all logits twice, a block at a time: what losses of single rows take."""
    return instance_loss(features, instance, classifier).mean()


LOSSES = {"torch's cross-entropy": whole, "mean instance loss": mean_instance_loss, "losses of rows": twice}


def drawn(n_rows, n_classes, n_components):
    torch.manual_seed(0)
    features = functional.normalize(torch.randn(n_rows, n_components)).requires_grad_()
    return features, torch.randint(n_classes, (n_rows,)), torch.randn(n_classes, n_components).requires_grad_()


def step(loss, features, instance, classifier):
    features.grad = classifier.grad = None
    loss(features, instance, classifier).backward()


def peak(name, *sizes):
    """Return by how many bytes the peak rises in a pass."""
    torch.set_num_threads(1)
    tensors = drawn(*sizes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(LOSSES[name], *tensors)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main():
    """Print time and memory of each."""
    options = bench.parser(__doc__)
    options.add_argument("--classes", type=int, default=113_287)
    options.add_argument("--components", type=int, default=1024)
    options.add_argument("--rows", type=int, default=1024)
    options.add_argument("--only-means", action="store_true", help="leave out the losses of single rows")
    options = options.parse_args()
    losses = {name: loss for name, loss in LOSSES.items() if not (options.only_means and loss is twice)}
    sizes = (options.rows, options.classes, options.components)
    gradient = 4 * options.classes * options.components
    beside = {}
    for name in losses:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            beside[f"MB beside the gradient, {name}"] = round(
                (pool.submit(peak, name, *sizes).result() - gradient) / 1e6
            )
    tensors = drawn(*sizes)
    runs = {name: partial(step, loss, *tensors) for name, loss in losses.items()}
    records = []
    for n_threads in bench.thread_counts():
        with bench.threads(n_threads):
            seconds = bench.interleave(runs, options.turns)
            records.append(
                bench.report(
                    f"{options.rows} rows, {options.classes} classes of {options.components}",
                    seconds,
                    against="torch's cross-entropy",
                    targets={"mean instance loss": ("<=", 1.1)},
                    **beside,
                )
            )
    bench.save(records, options.out)


if __name__ == "__main__":
    main()
