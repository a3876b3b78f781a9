"""Time training beside what one would run instead and beside the limit of the machine.

Three tables: of epochs, of whole processes, of growing numbers of images. Some five minutes.
"""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

import data
import train
from model import MLP, evaluate
from plumbing import devices, sources
from plumbing.files import scratch_folder
from plumbing.optimizer import Adam, fast_products, multiplies_bfloat16
from recipes import RECIPES

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
TARGET = 0.975  # test accuracy
BATCH_SIZE = RECIPES["quick"].batch_size
ROUNDS = 5
EPOCHS = 4  # of a fast loop in a round, as in a run of the recipe quick; a slow one has one
PROCESS_ROUNDS = 3
GROWTH = 60_000, 240_000, 960_000  # images


# The loops. Each is a generator that trains an epoch and yields its number in the run and a
# function that tells the test accuracy, for ever.


class Pictures(Dataset):
    """A table of the `datasets` library as one wraps it first: a picture and ToTensor per item."""

    def __init__(self, table):
        from torchvision.transforms import ToTensor

        self.table, self.to_tensor = table, ToTensor()

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


def tutorial(dataset, test, device, workers=0):
    """The loop of most tutorials."""
    loader = DataLoader(
        dataset, batch_size=64, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    model = MLP().to(device)
    criterion = nn.CrossEntropyLoss()
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


def scikit_learn(training, test):
    from sklearn.neural_network import MLPClassifier

    pixels, test_pixels = (
        data.to_float(split.images).flatten(1).cpu().numpy() for split in (training, test)
    )
    labels, test_labels = training.labels.cpu().numpy(), test.labels.cpu().numpy()
    classifier = MLPClassifier((128,), batch_size=min(BATCH_SIZE, len(labels)))
    for epoch in itertools.count(1):
        classifier.partial_fit(pixels, labels, classes=np.arange(10))
        yield epoch, lambda: classifier.score(test_pixels, test_labels)


def this_project(training, test, recipe):
    for seed in itertools.count():
        torch.manual_seed(seed)
        model = MLP(recipe.deslant).to(training.images.device)
        optimizer = Adam(model, recipe.beta1, recipe.beta2)
        for epoch, _ in train.train(model, optimizer, training, recipe, seed):
            yield epoch, lambda model=model: evaluate(model, test.images, test.labels).accuracy


def matrix_products(count, device):
    """What no loop can do without: the products of an epoch of `count` images, and nothing else."""
    sizes = (BATCH_SIZE, 784), (BATCH_SIZE, 128), (BATCH_SIZE, 10), (128, 784), (10, 128)
    # As numbers of the kind that fast_products makes of them on this device.
    on_cpu = torch.device(device).type == "cpu"
    kind = torch.bfloat16 if on_cpu and multiplies_bfloat16() else torch.float32
    tensors = (torch.rand(size, device=device).to(kind) for size in sizes)
    images, hidden, logits, weight, last_weight = tensors
    like = hidden, logits, last_weight, hidden, weight
    results = [torch.empty_like(tensor) for tensor in like]
    for epoch in itertools.count(1):
        for _ in range(-(-count // BATCH_SIZE)):
            with fast_products():
                torch.mm(images, weight.T, out=results[0])
                torch.mm(hidden, last_weight.T, out=results[1])
                torch.mm(logits.T, hidden, out=results[2])  # this and the next two: gradients
                torch.mm(logits, last_weight, out=results[3])
                torch.mm(hidden.T, images, out=results[4])
        results[4][0, 0].item()  # waits for a GPU
        yield epoch, lambda: 0.0


def tensor_dataset(split):
    return TensorDataset(data.to_float(split.images).cpu(), split.labels.cpu())


# Workers: as many as there are threads.
LOOPS = {
    "DataLoader, picture by picture": lambda table, training, test, device: tutorial(
        Pictures(table), test, device
    ),
    "DataLoader, picture by picture, workers": lambda table, training, test, device: tutorial(
        Pictures(table), test, device, torch.get_num_threads()
    ),
    "DataLoader, 64 pictures at once": lambda table, training, test, device: tutorial(
        BatchedPictures(table), test, device
    ),
    "DataLoader, TensorDataset": lambda table, training, test, device: tutorial(
        tensor_dataset(training), test, device
    ),
    "DataLoader, TensorDataset, workers": lambda table, training, test, device: tutorial(
        tensor_dataset(training), test, device, torch.get_num_threads()
    ),
    "scikit-learn, MLPClassifier": lambda table, training, test, device: scikit_learn(
        training, test
    ),
    "train.py, recipe quick": lambda table, training, test, device: this_project(
        training, test, RECIPES["quick"]
    ),
    "train.py, recipe accurate": lambda table, training, test, device: this_project(
        training, test, RECIPES["accurate"]
    ),
    "the matrix products alone": lambda table, training, test, device: matrix_products(
        len(training.images), device
    ),
}


def is_tutorial(name):
    return name.startswith("DataLoader")  # slow, with batches of 64


def take_turns(name, dataset, images, device):
    """Run a loop in this process: for each line of input an epoch, and a line about it."""
    training, test = (data.load(dataset, split).to(device) for split in ("train", "test"))
    epochs = LOOPS[name](open_table(Path(images)), training, test, device)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        epoch, accuracy = next(epochs)
        seconds = time.perf_counter() - start
        print(json.dumps([epoch, seconds, accuracy()]), flush=True)


def arrivals(history):
    """(epochs, seconds) to TARGET of each run that came there; see measure_loops for a history."""
    for epoch, seconds, accuracy in history:
        if epoch == 1:
            total, arrived = 0.0, False
        total += seconds
        if accuracy >= TARGET and not arrived:
            arrived = True
            yield epoch, total


def measure_loops(dataset, images, device):
    """A list of dicts, one per loop.

    The loops take turns, so that a slow minute of the machine slows them all. Each has a process of
    its own, because the threads of one library slow those of another.
    """
    processes, histories = {}, {name: [] for name in LOOPS}  # of (epoch, seconds, accuracy)
    try:
        for name in LOOPS:
            call = f"benchmark.take_turns{(name, dataset, str(images), str(device))!r}"
            processes[name] = subprocess.Popen(
                [sys.executable, "-c", f"import benchmark; {call}"],
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C does not reach it
            )
        for process in processes.values():
            process.stdout.readline()  # that it is ready
        for _ in tqdm(range(ROUNDS), "rounds", disable=None, leave=False):
            for name, process in processes.items():
                for _ in range(1 if is_tutorial(name) else EPOCHS):
                    print(file=process.stdin, flush=True)
                    histories[name].append(json.loads(process.stdout.readline()))
    except (BrokenPipeError, json.JSONDecodeError):
        raise OSError("a process with a loop has ended, see above") from None
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()  # until the workers of its DataLoader have seen it

    seconds = {name: median(s for _, s, _ in history) for name, history in histories.items()}
    rows = []
    for name, history in histories.items():
        arrived = [*arrivals(history)]
        rows.append(
            {
                "loop": name,
                "batch_size": 64 if is_tutorial(name) else BATCH_SIZE,
                "seconds": seconds[name],
                "n": len(history),
                "times_quick": seconds[name] / seconds["train.py, recipe quick"],
                "share_of_limit": seconds["the matrix products alone"] / seconds[name],
                "runs": sum(epoch == 1 for epoch, _, _ in history),
                "arrived": len(arrived),
                "epochs_to_target": median(epochs for epochs, _ in arrived) if arrived else None,
                "seconds_to_target": median(total for _, total in arrived) if arrived else None,
            }
        )
    return rows


def print_loops(rows):
    print(
        f"\n{'loop':39}  batch  s an epoch   n  times quick  limit / this  "
        f"epochs, s to {TARGET:.1%} (runs)"
    )
    for row in rows:
        arrival = "-"
        if row["arrived"]:
            arrival = f"{row['epochs_to_target']:g}, {row['seconds_to_target']:.2f}"
        arrival += f" ({row['arrived']} of {row['runs']})"
        print(
            f"{row['loop']:39}  {row['batch_size']:5}  {row['seconds']:10.3f}  {row['n']:2}  "
            f"{row['times_quick']:11.2f}  {row['share_of_limit']:12.1%}  {arrival:>27}"
        )


def write_table(split, path):
    """Write a split to a parquet file as the Hub has it, with a PNG per image."""
    label = datasets.ClassLabel(names=split.class_names)
    features = datasets.Features({"image": datasets.Image(), "label": label})
    columns = {"image": [*split.images.numpy()], "label": split.labels.tolist()}
    path.parent.mkdir(exist_ok=True)
    datasets.Dataset.from_dict(columns, features).to_parquet(path)


def open_table(folder):
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))


def ordinary_process(folder, device):
    """The whole of a tutorial's script, but for the evaluation."""
    dataset = Pictures(open_table(Path(folder)))
    for _ in itertools.islice(tutorial(dataset, None, device), ROUNDS):
        pass


def run_process(*arguments, folder):
    """The seconds that a Python takes for something, and what it prints; run in a folder."""
    command = [sys.executable, *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise OSError(f"{shlex.join(command)} failed: {done.stderr}")
    return seconds, done.stdout


def measure_processes(images, folder, device):
    """A list of dicts, one per process; all but the slowest take turns."""
    call = f"import benchmark; benchmark.ordinary_process({str(images)!r}, {str(device)!r})"
    quick = [ROOT / "train.py", "--recipe", "quick", "--dataset", images, "--device", device]
    slow = f"DataLoader, picture by picture, {ROUNDS} epochs"
    seconds = {slow: [run_process("-c", call, folder=folder)[0]]}
    turns = {
        "train.py --recipe quick, first run": quick,
        "train.py --recipe quick": quick,
        "analysis.py": [ROOT / "analysis.py", "--device", device],
        "robustness.py": [ROOT / "robustness.py", "--device", device],
        "python -c 'import torch'": ["-c", "import torch"],
    }
    for _ in range(PROCESS_ROUNDS):
        shutil.rmtree(folder / sources.CACHE, ignore_errors=True)  # what a first run does not have
        for name, arguments in turns.items():
            seconds.setdefault(name, []).append(run_process(*arguments, folder=folder)[0])
    return [
        {"process": name, "seconds": median(values), "n": len(values)}
        for name, values in seconds.items()
    ]


def print_processes(rows):
    print(f"\n{'whole process':42}  seconds  n")
    for row in rows:
        print(f"{row['process']:42}  {row['seconds']:7.2f}  {row['n']}")


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


def grow(count, device):
    """Train an epoch of the accurate recipe on `count` images of noise, and evaluate on them.

    Print [seconds of the epoch, seconds of the evaluation, MB taken beyond those of 1,000 images].
    """
    memory = []
    for images in 1000, count:
        pixels = torch.randint(256, (images, 28, 28), dtype=torch.uint8)
        split = data.Split(pixels, torch.randint(10, (images,)), []).to(device)
        start = time.perf_counter()
        _, accuracy = next(this_project(split, split, RECIPES["accurate"]))
        middle = time.perf_counter()
        accuracy()
        end = time.perf_counter()
        memory.append(peak_memory(split.images.device))
    print(json.dumps([middle - start, end - middle, (memory[1] - memory[0]) / 1e6]))


def measure_growth(folder, device):
    """A list of dicts, one per number of images, each measured once, in a process of its own."""
    rows = []
    for count in GROWTH:
        call = f"import benchmark; benchmark.grow({count}, {str(device)!r})"
        output = run_process("-c", call, folder=folder)[1]
        names = "epoch_seconds", "evaluation_seconds", "megabytes"
        rows.append({"images": count} | dict(zip(names, json.loads(output), strict=True)))
    return rows


def print_growth(rows):
    print("\n images  s an epoch  s to evaluate  MB taken  MB of images (n = 1)")
    for row in rows:
        print(
            f"{row['images']:7,}  {row['epoch_seconds']:10.2f}  {row['evaluation_seconds']:13.2f}  "
            f"{row['megabytes']:8.0f}  {row['images'] * 784 / 1e6:12.0f}"
        )


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
    with scratch_folder() as folder:
        for name, split in splits.items():
            write_table(split, folder / "images" / f"{name}.parquet")
        open_table(folder / "images")  # which converts it once
        loops = measure_loops(dataset, folder / "images", device)
        print_loops(loops)
        processes = measure_processes(folder / "images", folder, device)
        print_processes(processes)
        growth = measure_growth(folder, device)
        print_growth(growth)
    cli.print_json(args.json, loops=loops, processes=processes, growth=growth)


if __name__ == "__main__":
    cli.run(main)
