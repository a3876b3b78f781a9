"""Time training beside what one would run instead and beside the limit of the machine.

Three tables: of epochs, of whole processes, of growing numbers of images. Some five minutes.
"""

from plumbing import cli

if __name__ in ("__main__", "__mp_main__"):  # the latter in the processes that it starts
    cli.set_up()
# isort: split
import importlib.util
import itertools
import multiprocessing
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

import data
import train
from model import MLP, evaluate
from plumbing import devices, sources
from plumbing.files import scratch_folder
from plumbing.optimizer import Adam, fast_products
from recipes import RECIPES

ROOT = Path(__file__).resolve().parent
TARGET = 0.975  # test accuracy
ROUNDS = 5
PROCESS_ROUNDS = 3
GROWTH = 60_000, 240_000, 960_000  # images


class Pictures(Dataset):
    """A parquet file as one wraps it first: a picture and ToTensor per item."""

    def __init__(self, file, training=None):
        from torchvision.transforms import ToTensor

        cache = str(file.with_name("cache"))
        self.table = datasets.Dataset.from_parquet(str(file), cache_dir=cache)
        self.to_tensor = ToTensor()

    def __len__(self):
        return len(self.table)

    def __getitem__(self, index):
        row = self.table[index]
        return self.to_tensor(row["image"]), row["label"]


class BatchedPictures(Pictures):
    """The same, with one look at the table per batch."""

    def __getitems__(self, indices):
        rows = self.table[indices]
        return [*zip(map(self.to_tensor, rows["image"]), rows["label"], strict=True)]


def tensor_dataset(file, training):
    return TensorDataset(data.to_float(training.images).cpu(), training.labels.cpu())


# The loops. Each takes the training images, as a parquet file and as a data.Split, and the Split of
# the test images. It is a generator that trains an epoch and yields its number in the run and a
# function that tells the test accuracy, for ever.


def tutorial(make_dataset, workers, file, training, test, device):
    """The loop of most tutorials, with as many workers as there are threads or with none."""
    dataset = make_dataset(file, training)
    count = torch.get_num_threads() if workers else 0
    loader = DataLoader(dataset, 64, shuffle=True, num_workers=count, persistent_workers=workers)
    model = MLP().to(device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in itertools.count(1):
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for a GPU
        yield epoch, lambda: evaluate(model, test.images, test.labels).accuracy


def scikit_learn(file, training, test, device):
    from sklearn.neural_network import MLPClassifier

    (pixels, labels), (test_pixels, test_labels) = (
        [data.to_float(split.images).flatten(1).numpy(), split.labels.numpy()]
        for split in (training.to("cpu"), test.to("cpu"))
    )
    classifier = MLPClassifier((128,), batch_size=min(QUICK.batch_size, len(labels)))
    for epoch in itertools.count(1):
        classifier.partial_fit(pixels, labels, classes=np.arange(10))
        yield epoch, lambda: classifier.score(test_pixels, test_labels)


def this_project(settings, file, training, test, device):
    for seed in itertools.count():
        torch.manual_seed(seed)
        model = MLP(settings.moments).to(device)
        optimizer = Adam(model, settings.beta1, settings.beta2)
        for epoch, _ in train.train(model, optimizer, training, replace(settings, seed=seed)):
            yield epoch, lambda model=model: evaluate(model, test.images, test.labels).accuracy


def matrix_products(file, training, test, device):
    """What no loop can do without: the matrix products of its epochs, and nothing else."""
    size = QUICK.batch_size
    shapes = [(size, 784), (size, 128), (size, 10), (128, 784), (10, 128)]
    tensors = [torch.rand(shape, device=device) for shape in shapes]
    with fast_products():  # which decides of what kind the numbers are
        kind = (tensors[0] @ tensors[3].T).dtype
    images, hidden, logits, weight, last_weight = (tensor.to(kind) for tensor in tensors)
    forward = [(images, weight.T), (hidden, last_weight.T)]
    backward = [(logits.T, hidden), (logits, last_weight), (hidden.T, images)]
    products = [(left, right, left @ right) for left, right in forward + backward]
    for epoch in itertools.count(1):
        for _ in range(-(-len(training.images) // size)):
            with fast_products():
                for left, right, product in products:
                    torch.mm(left, right, out=product)
        product[0, 0].item()  # waits for a GPU
        yield epoch, lambda: 0.0


class Loop(NamedTuple):
    function: object  # as above
    batch_size: int
    epochs: int  # in a round: a whole run of this project, and of a slow loop a part of one


QUICK = RECIPES["quick"]
SHORT = replace(RECIPES["accurate"], epochs=15)
LOOPS = {
    "DataLoader, picture by picture": Loop(partial(tutorial, Pictures, False), 64, 1),
    "DataLoader, picture by picture, workers": Loop(partial(tutorial, Pictures, True), 64, 1),
    "DataLoader, 64 pictures at once": Loop(partial(tutorial, BatchedPictures, False), 64, 1),
    "DataLoader, TensorDataset": Loop(partial(tutorial, tensor_dataset, False), 64, 1),
    "DataLoader, TensorDataset, workers": Loop(partial(tutorial, tensor_dataset, True), 64, 1),
    "scikit-learn, MLPClassifier": Loop(scikit_learn, QUICK.batch_size, 4),
    "train.py, recipe quick": Loop(partial(this_project, QUICK), QUICK.batch_size, QUICK.epochs),
    "train.py, recipe accurate, 15 epochs": Loop(
        partial(this_project, SHORT), SHORT.batch_size, SHORT.epochs
    ),
    "the matrix products alone": Loop(matrix_products, QUICK.batch_size, 4),
}


# What is timed has processes of its own: the threads of one library slow those of another.


def prepare():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word
    multiprocessing.set_start_method(None, force=True)  # workers start as they do in any script


def new_process():
    """An executor that calls functions in one new process."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare)


def call_apart(function, *arguments):
    """What a function returns in a process of its own."""
    with new_process() as process:
        return process.submit(function, *arguments).result()


def timed(function, *arguments):
    """(seconds that a function takes, what it returns)."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


@cache
def loop(name, dataset, file, device):
    """The loop of that name in this process, which goes on where it is."""
    splits = (data.load(dataset, split).to(device) for split in ("train", "test"))
    return LOOPS[name].function(file, *splits, device)


def turn(name, *arguments):
    """(number in the run, seconds, test accuracy) of the next epoch of a loop."""
    seconds, (epoch, accuracy) = timed(next, loop(name, *arguments))
    return epoch, seconds, accuracy()


def run_loops(dataset, file, device):
    """{name of a loop: what turn() returns for each of its epochs}.

    The loops take turns, so that a slow minute of the machine slows them all.
    """
    histories = {name: [] for name in LOOPS}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(new_process()) for name in LOOPS}
        for _ in tqdm(range(ROUNDS), "rounds", disable=None, leave=False):
            for name, process in processes.items():
                for _ in range(LOOPS[name].epochs):
                    epoch = process.submit(turn, name, dataset, file, device)
                    histories[name].append(epoch.result())
    return histories


def split_runs(history):
    """The runs of a history, see run_loops(): lists of (epochs, seconds, accuracy), both so far."""
    runs = []
    for epoch, seconds, accuracy in history:
        if epoch == 1:
            runs.append([])
            total = 0.0
        total += seconds
        runs[-1].append((epoch, total, accuracy))
    return runs


def compare(histories):
    """A dict per loop, of what run_loops() returns."""
    typical = {name: median(s for _, s, _ in history) for name, history in histories.items()}
    for name, history in histories.items():
        runs = split_runs(history)
        arrivals = [next((epoch for epoch in run if epoch[2] >= TARGET), None) for run in runs]
        arrived = [*filter(None, arrivals)]
        epochs, seconds, _ = map(median, zip(*arrived, strict=True)) if arrived else [None] * 3
        lengths, totals, accuracies = zip(*(run[-1] for run in runs), strict=True)
        yield {
            "loop": name,
            "batch_size": LOOPS[name].batch_size,
            "seconds": typical[name],
            "n": len(history),
            "times_quick": typical[name] / typical["train.py, recipe quick"],
            "share_of_limit": typical["the matrix products alone"] / typical[name],
            "runs": len(runs),
            "run_epochs": median(lengths),
            "run_seconds": median(totals),
            "run_accuracy": mean(accuracies),
            "arrived": len(arrived),
            "epochs_to_target": epochs,
            "seconds_to_target": seconds,
        }


def run_tutorial(file, device):
    """The whole of a tutorial's script, but for the evaluation."""
    for _ in itertools.islice(tutorial(Pictures, False, file, None, None, device), ROUNDS):
        pass


def measure_processes(file, folder, device):
    """A dict per process; all but the slowest take turns."""
    slow = timed(call_apart, run_tutorial, file, device)[0]
    seconds = {f"DataLoader, picture by picture, {ROUNDS} epochs": [slow]}

    def script(name, *flags):
        return [sys.executable, ROOT / name, "--device", str(device), *flags]

    quick = script("train.py", "--recipe", "quick", "--dataset", file.parent)
    commands = {
        "train.py --recipe quick, first run": quick,
        "train.py --recipe quick": quick,
        "analysis.py": script("analysis.py"),
        "robustness.py": script("robustness.py"),
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    }
    run = partial(subprocess.run, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for _ in range(PROCESS_ROUNDS):
        shutil.rmtree(folder / sources.CACHE, ignore_errors=True)  # what a first run does not have
        for name, command in commands.items():
            seconds.setdefault(name, []).append(timed(run, command)[0])
    for name, values in seconds.items():
        yield {"process": name, "seconds": median(values), "n": len(values)}


def peak_memory(device):
    """The bytes that this process has had at most, of a GPU's memory if it works on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of Linux: also the parent's
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def grow(counts, device):
    """A dict per number of images, of noise: an epoch of the accurate recipe, and evaluating them.

    The numbers rise; the memory is what is taken beyond that of 1,000 images.
    """
    rows = []
    for count in (1000, *counts):
        pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8)
        split = data.Split(pixels, torch.randint(10, (count,)), []).to(device)
        epochs = this_project(RECIPES["accurate"], None, split, split, device)
        seconds, (_, accuracy) = timed(next, epochs)
        row = {"images": count, "epoch_seconds": seconds, "evaluation_seconds": timed(accuracy)[0]}
        rows.append(row | {"megabytes": peak_memory(device) / 1e6})
    first, *others = rows
    return [row | {"megabytes": row["megabytes"] - first["megabytes"]} for row in others]


# The tables.


def write_pictures(split, path):
    """Write a split to a parquet file as the Hub has it, with a PNG per image."""
    label = datasets.ClassLabel(names=split.class_names)
    features = datasets.Features({"image": datasets.Image(), "label": label})
    columns = {"image": [*split.images.numpy()], "label": split.labels.tolist()}
    datasets.Dataset.from_dict(columns, features).to_parquet(path)


def print_table(heading, row_format, rows):
    print(f"\n{heading}")
    for row in rows:
        print(row_format.format(**row))


def add_cells(row):
    """A row of compare() with the cells about its runs and their way to TARGET."""
    way = f"{row['epochs_to_target']:g}, {row['seconds_to_target']:.2f}" if row["arrived"] else "-"
    return row | {
        "arrival": f"{way} ({row['arrived']} of {row['runs']})",
        "run": "{run_epochs:g}, {run_seconds:.2f}, {run_accuracy:.2%}".format(**row),
    }


def measure(dataset, splits, device):
    """Measure and print the three tables; a dict of their rows, lists of dicts."""
    with scratch_folder() as folder:
        file = folder / "images" / "train.parquet"
        file.parent.mkdir()
        for name, split in splits.items():
            write_pictures(split, file.with_stem(name))
        Pictures(file)  # which converts it once
        loops = [*compare(run_loops(dataset, file, device))]
        print_table(
            f"{'loop':39}  batch  s an epoch   n  times quick  limit / this  "
            f"epochs, s to {TARGET:.1%} (runs)  a run: epochs, s, accuracy",
            "{loop:39}  {batch_size:5}  {seconds:10.3f}  {n:2}  {times_quick:11.2f}  "
            "{share_of_limit:12.1%}  {arrival:>27}  {run:>26}",
            map(add_cells, loops),
        )
        processes = [*measure_processes(file, folder, device)]
        print_table(
            f"{'whole process':42}  seconds  n", "{process:42}  {seconds:7.2f}  {n}", processes
        )
        growth = call_apart(grow, GROWTH, device)
        print_table(
            " images  s an epoch  s to evaluate  MB taken  MB of images (n = 1)",
            "{images:7,}  {epoch_seconds:10.2f}  {evaluation_seconds:13.2f}  {megabytes:8.0f}  "
            "{megabytes_of_images:12.0f}",
            [row | {"megabytes_of_images": 784 * row["images"] / 1e6} for row in growth],
        )
    return {"loops": loops, "processes": processes, "growth": growth}


def main():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser, without=data.MNIST)
    devices.add_flags(parser)
    args = parser.parse_args()
    dataset = data.MNIST if args.dataset is None else args.dataset
    if not importlib.util.find_spec("sklearn"):
        raise cli.InputError("scikit-learn is missing, `make benchmark` installs it")
    device = devices.choose(args.device, args.threads)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    splits = {name: data.load(dataset, name) for name in ("train", "test")}
    sizes = " + ".join(f"{len(split.images):,}" for split in splits.values())
    cli.show(device=devices.describe(device), dataset=f"{dataset}: {sizes} images")
    try:
        summary = measure(dataset, splits, device)
    except (BrokenProcessPool, subprocess.CalledProcessError) as error:
        raise OSError(f"a process that was timed has failed: {error}") from error
    cli.print_json(args.json, **summary)


if __name__ == "__main__":
    cli.run(main)
