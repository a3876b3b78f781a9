"""Train a 784-128-10 network on MNIST, or on any dataset of its shape, and save a checkpoint."""

import cli  # first: it spares the traceback where Ctrl-C falls into the other imports

# isort: split
import json
import math
import shlex
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.optim.adam import adam
from tqdm import tqdm  # `datasets` brings it

import data
import recipes
from files import check_writable
from model import MLP, copy_to_cpu, evaluate, load_checkpoint, save_checkpoint, snapshot

WARMUP = 0.1  # share of a run in which the learning rate rises
SAVE_EVERY = 5  # seconds
NOT_MNIST = "drawn digits in place of MNIST"


class Adam:
    """Adam (D. Kingma and J. Ba, 2015), with the arithmetic of torch.optim.Adam(fused=True).

    That class spends as much time in Python as in arithmetic on so small a network, and its first
    use imports the compiler of torch.compile, which takes half as long again as `import torch`.
    """

    def __init__(self, parameters, recipe):
        self.parameters = list(parameters)
        self.betas = {"beta1": recipe.beta1, "beta2": recipe.beta2}
        self.state = {
            "step": [torch.zeros((), device=p.device) for p in self.parameters],
            "exp_avg": [torch.zeros_like(p) for p in self.parameters],
            "exp_avg_sq": [torch.zeros_like(p) for p in self.parameters],
        }

    def zero_grad(self):
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate):
        adam(
            self.parameters,
            [parameter.grad for parameter in self.parameters],
            self.state["exp_avg"],
            self.state["exp_avg_sq"],
            max_exp_avg_sqs=[],
            state_steps=self.state["step"],
            fused=True,
            amsgrad=False,
            lr=learning_rate,
            weight_decay=0,
            eps=1e-8,
            maximize=False,
            **self.betas,
        )


def learning_rate(step, steps, highest):
    """The rate at a step (from 0): a linear rise during WARMUP, then a linear fall to zero."""
    rise = (step + 1) / (WARMUP * steps)
    fall = (steps - step) / ((1 - WARMUP) * steps)
    return highest * min(rise, fall, 1)


def optimizer_tensors(model, optimizer):
    """What Adam knows of each parameter, on the CPU: {"layers.1.weight.exp_avg": ...}."""
    names = [name for name, _ in model.named_parameters()]
    return {
        f"{name}.{key}": copy_to_cpu(tensor)
        for key, tensors in optimizer.state.items()
        for name, tensor in zip(names, tensors, strict=True)
    }


def restore(path, checkpoint, model, optimizer, recipe, training):
    """Give an Adam what it knew at the checkpoint; InputError where that does not fit the data."""
    epochs, images = len(checkpoint.history), len(training.images)
    steps = min(epochs * -(-images // recipe.batch_size), 2**24)  # where Adam's float32 stops
    misfits = ["batch size"] if recipe.batch_size > images else []
    misfits += ["list of classes"] if checkpoint.class_names != training.class_names else []
    for index, (name, _) in enumerate(model.named_parameters()):
        for key, tensors in optimizer.state.items():
            tensor, like = checkpoint.optimizer.get(f"{name}.{key}"), tensors[index]
            if (
                torch.is_tensor(tensor)
                and (tensor.shape, tensor.dtype) == (like.shape, like.dtype)
                and tensor.isfinite().all()
                and (key != "step" or tensor == steps)
            ):
                tensors[index] = tensor.to(like.device, copy=True)
            else:
                misfits.append(f"{name}.{key}")
    if misfits:
        raise cli.InputError(
            f"checkpoint {path} cannot be resumed: its {misfits[0]} does not fit {epochs} epochs "
            f"of {images:,} images, so the dataset has changed or the file is damaged; train anew "
            "without --resume"
        )


@contextmanager
def fast_products():
    """Let matrix products take a faster way, which may be less precise, where PyTorch has one.

    It is TensorFloat-32 on a GPU, bfloat16 on some CPUs and full precision by another library on
    the others. Gradients bear it; distortions and evaluation stay the same on every device.
    """
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def train(model, optimizer, split, recipe, seed, done=0):
    """Train the model in place on a data.Split; after each epoch yield (epoch, mean loss in nats).

    The model and the split are on the same device; the first `done` epochs are behind them.
    """
    # glibc hands memory freed by one step back to the kernel, and the next step pays a tenth of its
    # time to get it again. Once it has freed a block of this size, it keeps what is smaller.
    torch.empty(2**24, dtype=torch.uint8)
    for epoch in range(done + 1, recipe.epochs + 1):
        batches = data.Batches(*split[:2], recipe.batch_size, recipe.distortion, seed, epoch)
        steps = recipe.epochs * len(batches)
        progress = tqdm(batches, f"epoch {epoch}", disable=None, leave=False, delay=1)
        # The loss is summed on the device and read once an epoch, because reading waits for a GPU.
        total = torch.zeros((), device=split.images.device)
        for step, (images, labels) in enumerate(progress, start=(epoch - 1) * len(batches)):
            with fast_products():
                loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step(learning_rate(step, steps, recipe.learning_rate))
            total += loss.detach() * len(labels)
        yield epoch, total.item() / len(split.images)


def make_parser():
    parser = cli.parser(__doc__, f"{data.MNIST}, or drawn digits where it cannot be had")
    recipes.add_flags(parser)
    parser.add_argument(
        "--seed",
        type=cli.whole_number(0, 2**32 - 1),
        default=0,
        help="of all that is random: weights, order, distortions (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the unfinished run in the checkpoint, with its settings",
    )
    return parser


def saved_settings(parser, path, checkpoint):
    """The flags of the run that wrote a checkpoint, in front of those of this one.

    InputError where a flag of this one says something else.
    """
    saved = checkpoint.recipe | {"dataset": checkpoint.dataset, "seed": checkpoint.seed}
    names = ["dataset", "recipe", "seed", *recipes.numbers(recipes.RECIPES["quick"])]
    try:
        flags = [f"{recipes.flag(name)}={saved[name]}" for name in names]
        before = vars(parser.parse_args(flags))  # checks the values, too
    except (KeyError, cli.InputError) as error:
        raise cli.InputError(f"checkpoint {path}: its settings are damaged: {error}") from error
    args = parser.parse_args([*flags, *sys.argv[1:]])
    if differing := [name for name in names if before[name] != getattr(args, name)]:
        kept = " ".join(f"{recipes.flag(name)} {before[name]}" for name in differing)
        typed = " ".join(f"{recipes.flag(name)} {getattr(args, name)}" for name in differing)
        raise cli.InputError(
            f"checkpoint {path} is of a run with {kept}, not {typed}: go on with it without these, "
            "or train anew without --resume"
        )
    return args


def print_epoch(epoch, loss, test_accuracy, errors, seconds):
    print(f"{epoch:5}  {loss:6.4f}  {test_accuracy:13.2%}  {errors:6,}  {seconds:7.2f}", flush=True)


def print_summary(args, checkpoint, seconds, device, missing=None):
    errors = checkpoint.history[-1]["errors"]
    print(f"\naccuracy    {checkpoint.test_accuracy:.2%} of the test images, {errors:,} errors")
    print(f"time        {seconds:.2f} s in the training loop, evaluation included")
    print(f"checkpoint  {args.checkpoint}")
    if missing:
        print(f"warning     {NOT_MNIST}: {cli.sentence(missing)}")
    if args.json:
        print(
            json.dumps(
                {
                    "test_accuracy": checkpoint.test_accuracy,
                    "errors": errors,
                    "epochs": checkpoint.epoch,
                    "seconds": seconds,
                    "device": str(device),
                    "dataset": checkpoint.dataset,
                    "checkpoint": str(args.checkpoint),
                }
            )
        )


def main():
    parser = make_parser()
    args = parser.parse_args()
    checkpoint = None
    if args.resume:
        model, checkpoint = load_checkpoint(args.checkpoint)
        args = saved_settings(parser, args.checkpoint, checkpoint)
    recipe = recipes.from_flags(args)
    device = cli.choose_device(args.device)
    if checkpoint and checkpoint.epoch >= recipe.epochs:
        print(f"finished    {checkpoint.summary}; there is nothing left to do")
        return print_summary(args, checkpoint, 0.0, device)
    check_writable(args.checkpoint)

    # The data moves to the device once, as bytes.
    args.dataset, training, test, missing = data.load_splits(args.dataset)
    training, test = training.to(device), test.to(device)
    count = len(training.images)
    if not checkpoint:
        if args.batch_size and args.batch_size > count:
            raise cli.InputError(f"--batch-size {args.batch_size} exceeds the {count} images")
        recipe = replace(recipe, batch_size=min(recipe.batch_size, count))
        torch.manual_seed(args.seed)
        model = MLP()
    optimizer = Adam(model.to(device).parameters(), recipe)
    done, history = 0, []
    if checkpoint:
        done, history = checkpoint.epoch, list(checkpoint.history)
        restore(args.checkpoint, checkpoint, model, optimizer, recipe, training)

    print(f"device      {cli.describe_device(device)}, PyTorch {torch.__version__}")
    print(f"dataset     {args.dataset}: {count:,} + {len(test.images):,} images")
    if missing:
        print(f"warning     {NOT_MNIST}: {cli.sentence(missing)}")
    print(f"network     784-128-10, {sum(p.numel() for p in model.parameters()):,} parameters")
    print(
        f"recipe      {args.recipe}: epochs {recipe.epochs}, batch size {recipe.batch_size}, "
        f"learning rate {recipe.learning_rate}, beta1 {recipe.beta1}, beta2 {recipe.beta2}, "
        f"seed {args.seed}"
    )
    distortion = vars(recipe.distortion).items()
    print("distortion  " + ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in distortion))
    if done:
        print(f"resuming    {args.checkpoint} after {done} epochs")
    print("\nepoch    loss  test accuracy  errors  seconds")

    # The test set is read after each epoch and decides nothing.
    start = saved = epoch_start = time.perf_counter()
    try:
        for epoch, loss in train(model, optimizer, training, recipe, args.seed, done):
            seconds = time.perf_counter() - epoch_start
            result = evaluate(model, test.images, test.labels)
            if not (math.isfinite(loss) and result.logits.isfinite().all()):
                raise FloatingPointError(
                    f"the loss of epoch {epoch} is {loss} at a learning rate of up to "
                    f"{recipe.learning_rate}, so nothing more is saved; try a lower --learning-rate"
                )
            history.append(
                {
                    "epoch": epoch,
                    "loss": loss,
                    "test_accuracy": result.accuracy,
                    "errors": result.errors,
                    "seconds": seconds,
                }
            )
            unfinished = epoch < recipe.epochs
            checkpoint = snapshot(
                model,
                dataset=args.dataset,
                class_names=training.class_names,
                recipe={"recipe": args.recipe, **recipes.numbers(recipe)},
                seed=args.seed,
                epoch=epoch,
                history=list(history),
                test_accuracy=result.accuracy,
                optimizer=optimizer_tensors(model, optimizer) if unfinished else {},
            )
            print_epoch(**history[-1])
            if unfinished and time.perf_counter() - saved > SAVE_EVERY:
                try:
                    save_checkpoint(args.checkpoint, checkpoint)
                except OSError as error:
                    print(f"train.py: {error}; training goes on", file=sys.stderr)
                saved = time.perf_counter()
            epoch_start = time.perf_counter()
        seconds = time.perf_counter() - start
        save_checkpoint(args.checkpoint, checkpoint)
    except (KeyboardInterrupt, BrokenPipeError) as end:  # the latter of `train.py | head`
        cli.ignore_signals()
        if not checkpoint:
            raise type(end)("interrupted in the first epoch, nothing is saved") from None
        if checkpoint.epoch > done:
            save_checkpoint(args.checkpoint, checkpoint)
        sentence = f"interrupted; {checkpoint.epoch} of {recipe.epochs} epochs are saved"
        if checkpoint.epoch < recipe.epochs:
            path = shlex.quote(str(args.checkpoint))
            sentence += f", go on with: make train ARGS=--resume CHECKPOINT={path}"
        raise type(end)(sentence) from None
    print_summary(args, checkpoint, seconds, device, missing)


if __name__ == "__main__":
    cli.run(main)
