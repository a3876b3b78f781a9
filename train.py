"""Train a 784-128-10 network on MNIST, or on any dataset of its shape, and save a checkpoint."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
import statistics
import time

import torch
import torch.nn.functional as F
from tqdm import tqdm

import data
import recipes
from digits import frame
from model import MLP, evaluate, load_checkpoint
from plumbing import checkpoint as checkpoints
from plumbing import devices, resume
from plumbing.files import check_writable
from plumbing.optimizer import Adam, fast_products, keep_freed_memory


def train(model, optimizer, split, recipe, seed, done=0):
    """Train the model in place on a data.Split; after each epoch yield (epoch, mean loss in nats).

    The model and the split, which ends with the pool of drawn digits if the recipe has any, are on
    the same device; the first `done` epochs are behind them.
    """
    keep_freed_memory()
    for epoch in range(done + 1, recipe.epochs + 1):
        batches = data.Batches(
            split.images,
            split.labels,
            recipe.batch_size,
            recipe.distortion,
            seed,
            epoch,
            recipe.drawn,
        )
        steps = recipe.epochs * len(batches)
        progress = tqdm(batches, f"epoch {epoch}", disable=None, leave=False, delay=1)
        # The loss is summed on the device and read once an epoch, because reading waits for a GPU.
        total = torch.zeros((), device=split.images.device)
        for step, (images, labels) in enumerate(progress, start=(epoch - 1) * len(batches)):
            images = model.preprocess(images)
            with fast_products():
                loss = F.cross_entropy(model.layers(images), labels)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step(recipes.learning_rate(step, steps, recipe.learning_rate))
            total += loss.detach() * len(labels)
        yield epoch, total.item() / batches.count


def run(path, recipe, training, test, seed, facts, before=None, report=None):
    """Train a network and save it at a path; (its Checkpoint, seconds in the training loop).

    The data.Splits are on the device, the facts are what the Checkpoint says of the run besides the
    seed and how it went; `before` is the one to go on from, and report(**entry) is called after
    each epoch.
    """
    torch.manual_seed(seed)
    model = MLP(recipe.deslant).to(training.images.device)
    optimizer = Adam(model, recipe.beta1, recipe.beta2)
    if before:
        count = len(training.images) - (data.POOL - 1) * recipe.drawn  # of an epoch
        resume.restore(path, before, model, optimizer, facts, count)
    history = list(before.history) if before else []
    start = epoch_start = time.perf_counter()
    with resume.saving(path, recipe.epochs, before) as save:
        for epoch, loss in train(model, optimizer, training, recipe, seed, len(history)):
            seconds = time.perf_counter() - epoch_start
            result = evaluate(model, test.images, test.labels)  # which decides nothing
            check_finite(epoch, loss, result.logits, recipe.learning_rate)
            entry = {"epoch": epoch, "loss": loss, "seconds": seconds}
            history.append(entry | {"test_accuracy": result.accuracy, "errors": result.errors})
            unfinished = epoch < recipe.epochs
            checkpoint = checkpoints.snapshot(
                model, optimizer if unfinished else None, history, seed=seed, **facts
            )
            save(checkpoint)
            if report:
                report(**history[-1])
            epoch_start = time.perf_counter()
        return checkpoint, time.perf_counter() - start


def check_finite(epoch, loss, logits, highest_rate):
    if not (math.isfinite(loss) and logits.isfinite().all()):
        raise FloatingPointError(
            f"the loss of epoch {epoch} is {loss} at a learning rate of up to {highest_rate}, so "
            "nothing more is saved; try a lower --learning-rate"
        )


def make_parser():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser, f"{data.MNIST}, or drawn digits where it cannot be had")
    cli.add_checkpoint(parser)
    devices.add_flags(parser)
    recipes.add_flags(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the unfinished run in the checkpoint, with its settings",
    )
    return parser


def parse_args():
    """(the flags, the Checkpoint of the run that goes on or None)."""
    parser = make_parser()
    args, before = parser.parse_args(), None
    if args.seeds and (args.resume or args.seed is not None):
        parser.error("--seeds goes with neither --seed nor --resume")
    if args.resume:
        _, before = load_checkpoint(args.checkpoint)
        args = resume.saved_flags(parser, args, before)
    args.recipe, args.seed = args.recipe or recipes.DEFAULT, args.seed or 0
    args.validation = args.validation or 0
    return args, before


def describe_run(args, recipe, training):
    """What a Checkpoint is to say of a run, besides its seed and how it went."""
    settings = {"recipe": args.recipe, **recipes.settings(recipe), "validation": args.validation}
    settings["turned"] = int(training.turned)
    return {
        "dataset": args.dataset,
        "class_names": training.class_names,
        "frame": frame.measure(training.images)._asdict(),
        # The last bits depend on the number of threads.
        "settings": settings | {"threads": torch.get_num_threads()},
    }


def print_epoch(epoch, loss, seconds, test_accuracy, errors):
    print(f"{epoch:5}  {loss:6.4f}  {test_accuracy:13.2%}  {errors:6,}  {seconds:7.2f}", flush=True)


def summarize(path, checkpoint, seconds, device):
    """What --json tells of a run."""
    return {
        "test_accuracy": checkpoint.test_accuracy,
        "errors": checkpoint.history[-1]["errors"],
        "epochs": checkpoint.epoch,
        "seconds": seconds,
        "device": str(device),
        "dataset": checkpoint.dataset,
        "checkpoint": str(path),
    }


def print_summary(args, summary, warning=None):
    kind = "validation" if args.validation else "test"
    print()
    cli.show(
        accuracy=f"{summary['test_accuracy']:.2%} of the {kind} images, "
        f"{summary['errors']:,} errors",
        time=f"{summary['seconds']:.2f} s in the training loop, evaluation included",
        checkpoint=args.checkpoint,
        warning=warning,
    )
    cli.print_json(args.json, **summary)


def print_seeds(args, summaries, warning):
    """Print a line for each of the runs, whose summaries come one by one, and their mean."""
    runs = []
    for seed, run in zip(args.seeds, summaries, strict=True):
        accuracy, errors, seconds = run["test_accuracy"], run["errors"], run["seconds"]
        print(f"{seed:5}          {accuracy:13.2%}  {errors:6,}  {seconds:7.2f}", flush=True)
        runs.append(run)
    accuracies = [run["test_accuracy"] for run in runs]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    print()
    cli.show(
        accuracy=f"{mean:.2%} in the mean, standard deviation {deviation:.2%}, n = {len(runs)}",
        checkpoint=f"{runs[0]['checkpoint']} to {runs[-1]['checkpoint']}",
        warning=warning,
    )
    cli.print_json(args.json, test_accuracy=mean, standard_deviation=deviation, runs=runs)


def print_header(args, recipe, count, test, warning, before):
    kind, seeds = "validation" if args.validation else "test", args.seeds
    cli.show(
        warning=warning,
        dataset=args.dataset if warning else None,
        images=f"{count:,} training, {len(test.images):,} {kind}"
        + ", dark on light: turned around" * test.turned,
        network=f"784-128-10, {sum(p.numel() for p in MLP().parameters()):,} parameters",
        recipe=f"{args.recipe}: {recipes.describe(recipe)}, "
        + (f"seeds {seeds[0]} to {seeds[-1]}" if seeds else f"seed {args.seed}"),
        distortion=recipes.describe(recipe.distortion),
        resuming=before and f"{args.checkpoint} after {before.epoch} epochs",
    )
    first = " seed        " if seeds else "epoch    loss"
    kind = kind if args.validation else "test accuracy"
    print(f"\n{first}  {kind:>13}  errors  seconds")


def main():
    args, before = parse_args()
    recipe, device = recipes.from_flags(args), devices.choose(args.device, args.threads)
    if before and before.epoch >= recipe.epochs:
        cli.show(finished=f"{before.summary}; there is nothing left to do")
        return print_summary(args, summarize(args.checkpoint, before, 0.0, device))
    paths = {args.seed: args.checkpoint}
    if args.seeds:
        stem = args.checkpoint.stem
        paths = {seed: args.checkpoint.with_stem(f"{stem}-{seed}") for seed in args.seeds}
    for path in paths.values():
        check_writable(path)

    # Before the images, because a first run decodes or even downloads them.
    name = data.MNIST if args.dataset is None else args.dataset
    cli.show(device=devices.describe(device), dataset=name)
    args.dataset, training, test, warning = data.load_splits(args.dataset, args.validation)
    if warning:
        for path in paths.values():
            checkpoints.keep_others(path, args.dataset, warning)
    count = len(training.images)
    recipe = recipes.limit_batch(recipe, args.batch_size, count)
    facts = describe_run(args, recipe, training)
    training = data.add_drawn(training, recipe.drawn, args.dataset)
    training, test = training.to(device), test.to(device)  # once, as bytes

    print_header(args, recipe, count, test, warning, before)
    report = None if args.seeds else print_epoch
    summaries = (
        summarize(path, *run(path, recipe, training, test, seed, facts, before, report), device)
        for seed, path in paths.items()
    )
    if args.seeds:
        print_seeds(args, summaries, warning)
    else:
        print_summary(args, *summaries, warning)


if __name__ == "__main__":
    cli.run(main)
