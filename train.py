"""Train a 784-128-10 network on MNIST, or on any dataset of its shape, and save a checkpoint."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
import time
from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from tqdm import tqdm

import data
import recipes
from digits import frame
from model import MLP, check_classes, check_replaceable, evaluate, frame_advice, load_checkpoint
from plumbing import checkpoint as checkpoints
from plumbing import devices, report, resume
from plumbing.files import check_writable
from plumbing.optimizer import Adam, fast_products, keep_freed_memory


def train(model, optimizer, split, settings, done=0):
    """Train the model in place on a data.Split; after each epoch yield (epoch, mean loss in nats).

    The model and the split are on the same device; the first `done` epochs are behind them.
    """
    keep_freed_memory()
    for epoch in range(done + 1, settings.epochs + 1):
        # More epochs of a trained network are to see other distortions than it has seen.
        batches = data.Batches(split, settings, settings.earlier_epochs + epoch)
        steps = settings.epochs * len(batches)
        progress = tqdm(batches, f"epoch {epoch}", disable=None, leave=False, delay=1)
        # The loss is summed on the device and read once an epoch, because reading waits for a GPU.
        total = torch.zeros((), device=split.images.device)
        for step, (images, labels) in enumerate(progress, start=(epoch - 1) * len(batches)):
            with fast_products():
                loss = F.cross_entropy(model.layers(images), labels)  # They are preprocessed.
                optimizer.zero_grad()
                loss.backward()
            optimizer.step(recipes.learning_rate(step, steps, settings.learning_rate))
            total += loss.detach() * len(labels)
        yield epoch, total.item() / split.epoch


def train_and_save(path, settings, training, test, facts, start, before=None, show_epochs=True):
    """Train a network and save it at a path; (its Checkpoint, seconds in the training loop).

    The data.Splits are on the device, and the facts are what the Checkpoint is to say of the data.
    `start` is the Checkpoint whose weights are the first ones, in place of random ones, `before`
    the one to go on from, if any; show_epochs: print a line after each.
    """
    torch.manual_seed(settings.seed)
    model = MLP(settings.moments).to(training.images.device)
    optimizer = Adam(model, settings.beta1, settings.beta2)
    if start:
        model.load_state_dict(start.weights)
    history = []
    if before:
        history = resume.restore(path, before, model, optimizer, training, settings)
    facts = {**facts, "settings": asdict(settings)}
    began = epoch_began = time.perf_counter()
    with resume.saving(path, before) as save:
        for epoch, loss in train(model, optimizer, training, settings, len(history)):
            seconds = time.perf_counter() - epoch_began
            result = evaluate(model, test.images, test.labels)  # which decides nothing
            if not (math.isfinite(loss) and result.logits.isfinite().all()):
                raise FloatingPointError(
                    f"the loss of epoch {epoch} is {loss} at a learning rate of up to "
                    f"{settings.learning_rate}: nothing more is saved, try a lower --learning-rate"
                )
            entry = {"epoch": epoch, "loss": loss, "seconds": seconds}
            history.append(entry | {"test_accuracy": result.accuracy, "errors": result.errors})
            checkpoint = checkpoints.snapshot(model, optimizer, history, **facts)
            save(checkpoint)
            if show_epochs:
                report.print_line(epoch, f"{loss:.4f}", history[-1])
            epoch_began = time.perf_counter()
        return checkpoint, time.perf_counter() - began


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser, f"{data.MNIST}, or drawn digits where it cannot be had")
    cli.add_checkpoint(parser)
    devices.add_flags(parser)
    recipes.add_flags(parser)
    resume.add_flags(parser)
    parser.add_argument(
        "--things",
        action="store_true",
        help="the classes are things, and no digits, even where their names are numbers",
    )
    args = parser.parse_args()
    if args.seeds and (args.resume or args.seed is not None):
        parser.error("--seeds goes with neither --seed nor --resume")
    return args


def choose_settings(args):
    """(recipes.Settings, Checkpoint to start from or None, one to resume or None); changes args."""
    if not args.resume:
        start = args.start and load_checkpoint(args.start)[1]
        return recipes.from_flags(args, start), start, None
    _, before = load_checkpoint(args.checkpoint)
    resume.check_flags(args, before)
    args.dataset = args.dataset or before.dataset
    args.threads = args.threads or resume.usable_threads(before)
    args.things = before.class_names != data.DIGITS
    return recipes.Settings(**before.settings), None, before


def choose_paths(args, seed):
    """{seed: the file of its network}; InputError where one could not be written."""
    name = args.checkpoint
    paths = {n: name.parent / f"{name.stem}-{n}{name.suffix}" for n in args.seeds} or {seed: name}
    for path in (name, *paths.values()):
        check_writable(path)
    if args.start and args.start.resolve() in {path.resolve() for path in paths.values()}:
        raise cli.InputError(f"--start {args.start} would be lost: name another --checkpoint")
    return paths


def print_header(args, settings, dataset, training, test, warning, before):
    seeds = f"seeds {args.seeds[0]} to {args.seeds[-1]}" if args.seeds else f"seed {settings.seed}"
    cli.show(
        warning=warning,
        dataset=dataset if warning else None,
        images=f"{len(training.own):,} training, {len(test.images):,} {test.name}"
        + ", for want of test images" * (test.validation > 0 and not args.validation and not before)
        + ", dark on light: inverted" * test.inverted
        + ", pixels from 0 to 1: scaled" * training.scaled,
        classes=training.classes,
        network=f"784-128-10, {sum(p.numel() for p in MLP().parameters()):,} parameters",
        recipe=f"{settings.recipe}: {recipes.describe(settings, 'recipe')}, {seeds}",
        distortion=recipes.describe(settings, "distortion"),
        resuming=before and f"{args.checkpoint} after {before.epoch} epochs",
    )


def main():
    args = parse_args()
    settings, start, before = choose_settings(args)
    device = devices.choose(args.device, args.threads)
    if before and before.epoch >= settings.epochs:
        cli.show(finished=f"{before.summary}; there is nothing left to do")
        summary = report.summarize(args.checkpoint, before, 0.0, device)
        return report.print_end([summary], before.judged_by, args.json)
    paths = choose_paths(args, settings.seed)

    # Before the images, because a first run decodes or even downloads them.
    asked_for = data.MNIST if args.dataset is None else args.dataset
    cli.show(device=devices.describe(device), dataset=asked_for)
    cli.show(start=start and f"{args.start}: {start.summary}")
    dataset, training, test, warning = data.load_splits(
        args.dataset, settings.validation, args.things
    )
    if warning:
        for path in paths.values():
            check_replaceable(path, dataset, warning)
    if start:
        check_classes(args.start, start, dataset, training)
    training = data.add_drawn(training, settings.drawn, settings.nothing, dataset)
    digits = training.class_names == data.DIGITS
    settings = recipes.fit(settings, args, training.epoch, digits)
    settings = replace(
        settings,
        validation=test.validation,
        by_validation=int(test.name == "validation"),
        stratified=int(test.stratified),
        inverted=int(test.inverted),
        checksum=training.checksum,
        threads=torch.get_num_threads(),
        threshold=recipes.THRESHOLD if settings.nothing else 0.0,
    )
    print_header(args, settings, dataset, training, test, warning, before)

    facts = {"dataset": dataset, "class_names": training.class_names}
    facts["frame"] = frame.measure(training.own)._asdict()
    cli.show(advice=start and frame_advice(start, facts["frame"]))
    training, test = training.to(device), test.to(device)  # once, as bytes
    report.print_head(test.name, args.seeds)
    summaries = []
    for seed, path in paths.items():
        own = replace(settings, seed=seed)
        end = train_and_save(path, own, training, test, facts, start, before, not args.seeds)
        summaries.append(report.summarize(path, *end, device))
        if args.seeds:
            report.print_line(seed, "", summaries[-1])
    report.print_end(summaries, test.name, args.json, warning)


if __name__ == "__main__":
    cli.run(main)
