"""Train a 784-128-10 network on MNIST, or on any dataset of its shape, and save a checkpoint."""

import cli  # first: it spares the traceback where Ctrl-C falls into the other imports

# isort: split
import inspect
import json
import math
import time
from dataclasses import asdict, dataclass, fields, replace

import torch
import torch.nn.functional as F
from tqdm import tqdm  # `datasets` brings it

import data
from distort import Distortion
from files import check_writable
from model import MLP, evaluate, save_checkpoint


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run."""

    epochs: int
    batch_size: int
    learning_rate: float  # at its highest
    distortion: Distortion = Distortion()


# Chosen on a validation split, the last 10,000 training images.
RECIPES = {
    "quick": Recipe(epochs=8, batch_size=512, learning_rate=0.02),
    "accurate": Recipe(
        epochs=100,
        batch_size=512,
        learning_rate=0.01,
        distortion=Distortion(rotation=20, slant=20, smallest=0.8, largest=1.25, shift=2),
    ),
    "robust": Recipe(
        epochs=200,
        batch_size=512,
        learning_rate=0.01,
        distortion=Distortion(
            rotation=30,
            slant=25,
            smallest=0.55,
            largest=1.35,
            shift=3,
            occlusion=0.3,
            extra_writing=0.3,
        ),
    ),
}
WARMUP = 0.1  # share of a run in which the learning rate rises


class Adam(torch.optim.Adam):
    """torch.optim.Adam without the wrappers that import torch.compile's compiler at first use.

    Nothing here is compiled, and that import takes half as long again as `import torch`.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


def learning_rate(step, steps, highest):
    """The rate at a step (from 0): a linear rise during WARMUP, then a linear fall to zero."""
    rise = (step + 1) / (WARMUP * steps)
    fall = (steps - step) / ((1 - WARMUP) * steps)
    return highest * min(rise, fall, 1)


def train(model, split, recipe, seed):
    """Train the model in place on a data.Split; after each epoch yield (epoch, mean loss in nats).

    The model and the split are on the same device.
    """
    # glibc hands memory freed by one step back to the kernel, and the next step pays a tenth of its
    # time to get it again. Once it has freed a block of this size, it keeps what is smaller.
    torch.empty(2**24, dtype=torch.uint8)
    optimizer = Adam(model.parameters(), recipe.learning_rate, fused=True)
    for epoch in range(1, recipe.epochs + 1):
        batches = data.Batches(*split[:2], recipe.batch_size, recipe.distortion, seed, epoch)
        steps = recipe.epochs * len(batches)
        progress = tqdm(batches, f"epoch {epoch}", disable=None, leave=False, delay=1)
        # The loss is summed on the device and read once an epoch, because reading waits for a GPU.
        total = torch.zeros((), device=split.images.device)
        for step, (images, labels) in enumerate(progress, start=(epoch - 1) * len(batches)):
            optimizer.param_groups[0]["lr"] = learning_rate(step, steps, recipe.learning_rate)
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(labels)
        yield epoch, total.item() / len(split.images)


def parse_args():
    """(the flags, the Recipe that they describe)"""
    parser = cli.parser(__doc__, dataset=data.MNIST)
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="accurate",
        help="named settings (default: %(default)s), of which the flags below replace single ones",
    )
    for field in (*fields(Recipe)[:-1], *fields(Distortion)):
        if field.metadata:
            unit, kind = field.metadata["unit"], cli.number(*field.metadata["range"])
        else:
            unit, kind = "", cli.whole_number(1) if field.type is int else cli.positive_number
        settings = {
            name: {**vars(recipe), **vars(recipe.distortion)} for name, recipe in RECIPES.items()
        }
        values = ", ".join(f"{name} {settings[name][field.name]:g}" for name in RECIPES)
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, help=f"{unit} ({values})"
        )
    parser.add_argument(
        "--seed",
        type=cli.whole_number(0, 2**32 - 1),
        default=0,
        help="of all that is random: weights, order, distortions (default: %(default)s)",
    )
    args = parser.parse_args()

    def override(settings):
        given = {field.name: getattr(args, field.name, None) for field in fields(settings)}
        return replace(settings, **{name: x for name, x in given.items() if x is not None})

    recipe = override(RECIPES[args.recipe])
    return args, replace(recipe, distortion=override(recipe.distortion))


def main():
    args, recipe = parse_args()
    device = cli.choose_device(args.device)
    check_writable(args.checkpoint)

    # The data moves to the device once, as bytes.
    training = data.load(args.dataset, "train").to(device)
    test = data.load(args.dataset, "test").to(device)
    count = len(training.images)
    if args.batch_size and args.batch_size > count:
        raise cli.InputError(f"--batch-size {args.batch_size} exceeds the {count} training images")
    recipe = replace(recipe, batch_size=min(recipe.batch_size, count))

    torch.manual_seed(args.seed)
    model = MLP().to(device)

    print(f"device      {cli.describe_device(device)}, PyTorch {torch.__version__}")
    print(f"dataset     {args.dataset}: {count:,} + {len(test.images):,} images")
    print(f"network     784-128-10, {sum(p.numel() for p in model.parameters()):,} parameters")
    print(
        f"recipe      {args.recipe}: epochs {recipe.epochs}, batch size {recipe.batch_size}, "
        f"learning rate {recipe.learning_rate}, seed {args.seed}"
    )
    settings = vars(recipe.distortion).items()
    print("distortion  " + ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in settings))
    print("\nepoch    loss  test accuracy  errors  seconds")

    # The test set is read after each epoch and decides nothing.
    history = []
    start = epoch_start = time.perf_counter()
    for epoch, loss in train(model, training, recipe, args.seed):
        seconds = time.perf_counter() - epoch_start
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of epoch {epoch} is {loss}, so nothing is saved; try a lower "
                f"--learning-rate than {recipe.learning_rate}"
            )
        result = evaluate(model, test.images, test.labels)
        history.append(
            {
                "epoch": epoch,
                "loss": loss,
                "test_accuracy": result.accuracy,
                "errors": result.errors,
                "seconds": seconds,
            }
        )
        print(
            f"{epoch:5}  {loss:6.4f}  {result.accuracy:13.2%}  {result.errors:6,}  {seconds:7.2f}",
            flush=True,
        )
        epoch_start = time.perf_counter()
    seconds = time.perf_counter() - start

    save_checkpoint(
        args.checkpoint,
        model,
        dataset=args.dataset,
        class_names=training.class_names,
        recipe={"name": args.recipe, **asdict(recipe)},
        seed=args.seed,
        epoch=epoch,
        history=history,
        test_accuracy=result.accuracy,
    )
    print(f"\naccuracy    {result.accuracy:.2%} of the test images, {result.errors:,} errors")
    print(f"time        {seconds:.2f} s in the training loop, evaluation included")
    print(f"checkpoint  {args.checkpoint}")
    if args.json:
        print(
            json.dumps(
                {
                    "test_accuracy": result.accuracy,
                    "errors": result.errors,
                    "epochs": epoch,
                    "seconds": seconds,
                    "device": str(device),
                    "checkpoint": str(args.checkpoint),
                }
            )
        )


if __name__ == "__main__":
    cli.run(main)
