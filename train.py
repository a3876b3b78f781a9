"""Train a 784-128-10 network on MNIST, or on any dataset of its shape, and save a checkpoint."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
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

TURNED = ", dark on light: turned around"


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
            with fast_products():
                loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step(recipes.learning_rate(step, steps, recipe.learning_rate))
            total += loss.detach() * len(labels)
        yield epoch, total.item() / batches.count


def make_parser():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser, f"{data.MNIST}, or drawn digits where it cannot be had")
    cli.add_checkpoint(parser)
    devices.add_flags(parser)
    recipes.add_flags(parser)
    parser.add_argument(
        "--seed",
        type=cli.between(0, 2**32 - 1, int),
        help="of all that is random: weights, order, distortions (default: 0)",
    )
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
    if args.resume:
        _, before = load_checkpoint(args.checkpoint)
        args = resume.saved_flags(parser, args, before)
    args.recipe, args.seed = args.recipe or recipes.DEFAULT, args.seed or 0
    return args, before


def describe_run(args, recipe, training):
    """What a Checkpoint is to say of a run, besides how it went."""
    return {
        "dataset": args.dataset,
        "class_names": training.class_names,
        "frame": frame.measure(training.images)._asdict(),
        "settings": {
            "recipe": args.recipe,
            **recipes.settings(recipe),
            "threads": torch.get_num_threads(),  # of which the last bits depend
        },
        "seed": args.seed,
    }


def check_finite(epoch, loss, logits, highest_rate):
    if not (math.isfinite(loss) and logits.isfinite().all()):
        raise FloatingPointError(
            f"the loss of epoch {epoch} is {loss} at a learning rate of up to {highest_rate}, so "
            "nothing more is saved; try a lower --learning-rate"
        )


def print_epoch(epoch, loss, seconds, test_accuracy, errors):
    print(f"{epoch:5}  {loss:6.4f}  {test_accuracy:13.2%}  {errors:6,}  {seconds:7.2f}", flush=True)


def print_summary(args, device, checkpoint, seconds, warning=None):
    accuracy, errors = checkpoint.test_accuracy, checkpoint.history[-1]["errors"]
    print()
    cli.show(
        accuracy=f"{accuracy:.2%} of the test images, {errors:,} errors",
        time=f"{seconds:.2f} s in the training loop, evaluation included",
        checkpoint=args.checkpoint,
        warning=warning,
    )
    cli.print_json(
        args.json,
        test_accuracy=accuracy,
        errors=errors,
        epochs=checkpoint.epoch,
        seconds=seconds,
        device=str(device),
        dataset=checkpoint.dataset,
        checkpoint=str(args.checkpoint),
    )


def main():
    args, before = parse_args()
    recipe, device = recipes.from_flags(args), devices.choose(args.device, args.threads)
    if before and before.epoch >= recipe.epochs:
        cli.show(finished=f"{before.summary}; there is nothing left to do")
        return print_summary(args, device, before, seconds=0.0)
    check_writable(args.checkpoint)

    args.dataset, training, test, warning = data.load_splits(args.dataset)
    if warning:
        checkpoints.keep_others(args.checkpoint, args.dataset, warning)
    count = len(training.images)
    recipe = recipes.limit_batch(recipe, args.batch_size, count)
    facts = describe_run(args, recipe, training)
    training = data.add_drawn(training, recipe.drawn, args.dataset)
    training, test = training.to(device), test.to(device)  # once, as bytes
    torch.manual_seed(args.seed)
    model = MLP().to(device)
    optimizer = Adam(model, recipe.beta1, recipe.beta2)
    if before:
        resume.restore(args.checkpoint, before, model, optimizer, facts, count + recipe.drawn)

    cli.show(
        device=devices.describe(device),
        dataset=f"{args.dataset}: {count:,} + {len(test.images):,} images{TURNED * test.turned}",
        warning=warning,
        network=f"784-128-10, {sum(p.numel() for p in model.parameters()):,} parameters",
        recipe=f"{args.recipe}: {recipes.describe(recipe)}, seed {args.seed}",
        distortion=recipes.describe(recipe.distortion),
        resuming=before and f"{args.checkpoint} after {before.epoch} epochs",
    )
    print("\nepoch    loss  test accuracy  errors  seconds")
    history = list(before.history) if before else []
    start = epoch_start = time.perf_counter()
    with resume.saving(args.checkpoint, recipe.epochs, before) as save:
        for epoch, loss in train(model, optimizer, training, recipe, args.seed, len(history)):
            seconds = time.perf_counter() - epoch_start
            result = evaluate(model, test.images, test.labels)  # which decides nothing
            check_finite(epoch, loss, result.logits, recipe.learning_rate)
            entry = {"epoch": epoch, "loss": loss, "seconds": seconds}
            history.append(entry | {"test_accuracy": result.accuracy, "errors": result.errors})
            unfinished = epoch < recipe.epochs
            checkpoint = checkpoints.snapshot(
                model, optimizer if unfinished else None, history, **facts
            )
            save(checkpoint)
            print_epoch(**history[-1])
            epoch_start = time.perf_counter()
        seconds = time.perf_counter() - start
    print_summary(args, device, checkpoint, seconds, warning)


if __name__ == "__main__":
    cli.run(main)
