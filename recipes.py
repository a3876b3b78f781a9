"""The settings of a training run: named recipes, and the flags that replace their numbers."""

import argparse
from dataclasses import dataclass, fields, replace

from digits.distort import Distortion, setting
from plumbing import cli

WARMUP = 0.1  # share of a run in which the learning rate rises
KEPT = "share of Adam's mean {} that a step keeps"


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run."""

    epochs: int = setting("passes over the training images", 1, 10**9)
    batch_size: int = setting("images a step", 1, 10**9)
    learning_rate: float = setting("at its highest", 1e-9, 1e38)  # float32 ends there
    beta1: float = setting(KEPT.format("of the gradient"), 0, 0.99999, default=0.9)
    beta2: float = setting(KEPT.format("of the squared gradient"), 0, 0.99999, default=0.999)
    drawn: int = setting("drawn digits an epoch, beside the training images", 0, 10**6, default=0)
    deslant: int = setting("1: take the slant out of images first; 0: do not", 0, 1, default=0)
    distortion: Distortion = Distortion()


# Chosen on a validation split, the last 10,000 training images; "everyday" also on drawings that
# strangers made.
RECIPES = {
    # A run has 472 steps only, so Adam's means must adapt quickly.
    "quick": Recipe(epochs=4, batch_size=512, learning_rate=0.02, beta1=0.6, beta2=0.9),
    "accurate": Recipe(
        epochs=100,
        batch_size=512,
        learning_rate=0.01,
        distortion=Distortion(rotation=20, slant=20, smallest=0.8, largest=1.25, shift=2),
    ),
    # To read what people write: MNIST's writers are Americans of the 1990s, all with the same pens.
    "everyday": Recipe(
        epochs=150,
        batch_size=512,
        learning_rate=0.01,
        drawn=15_000,
        deslant=1,
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
DEFAULT = "accurate"


def learning_rate(step, steps, highest):
    """The rate at a step (from 0): a linear rise during WARMUP, then a linear fall to zero."""
    rise = (step + 1) / (WARMUP * steps)
    fall = (steps - step) / ((1 - WARMUP) * steps)
    return highest * min(rise, fall, 1)


def settings(recipe):
    """The settings of a Recipe by name, those of its Distortion among them."""
    both = vars(recipe) | vars(recipe.distortion)
    return {name: value for name, value in both.items() if name != "distortion"}


def describe(record):
    """The numbers of a Recipe or a Distortion in words: "epochs 4, batch size 512, ..."."""
    names = [field.name for field in fields(record) if field.metadata]
    return ", ".join(f"{name.replace('_', ' ')} {getattr(record, name):.10g}" for name in names)


def seeds(text):
    """The argparse type of --seeds: "5" is the range 0 to 4, "3-7" what it says; two at least."""
    first, dash, last = text.partition("-")
    try:
        found = range(int(first), int(last) + 1) if dash else range(int(first))
    except ValueError:
        found = range(0)
    if not 0 <= found.start < found.stop <= 2**32 or not 2 <= len(found) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 2 to 1000 nor a range like 3-7")
    return found


def add_flags(parser):
    """Add the flags of a training run; all but --seeds are None where they are not given."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help=f"named settings (default: {DEFAULT}), of which the flags below replace single ones",
    )
    for field in (*fields(Recipe), *fields(Distortion)):
        if field.metadata:  # else it is the distortion as a whole
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=cli.between(*field.metadata["range"], field.type),
                help=f"{field.metadata['unit']} ("
                + ", ".join(f"{key} {settings(RECIPES[key])[field.name]:g}" for key in RECIPES)
                + ")",
            )
    parser.add_argument(
        "--validation",
        type=cli.between(0, 10**9, int),
        help="train without the last so many training images, and read these in place of the test "
        "images (default: 0)",
    )
    parser.add_argument(
        "--seed",
        type=cli.between(0, 2**32 - 1, int),
        help="of all that is random: weights, order, distortions (default: 0)",
    )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=(),
        help="a run for each of so many seeds (5) or of a range (3-7), the seed in the name of its "
        "checkpoint",
    )


def from_flags(args):
    """The Recipe of that name, with the settings that have a flag of their own."""
    given = {name: value for name, value in vars(args).items() if value is not None}

    def override(record):
        return replace(record, **{name: given[name] for name in vars(record) if name in given})

    recipe = override(RECIPES[args.recipe or DEFAULT])
    return replace(recipe, distortion=override(recipe.distortion))


def limit_batch(recipe, typed, images):
    """The Recipe with a batch of all images at most; InputError where a larger one was typed."""
    if typed and typed > images:
        raise cli.InputError(f"a batch size of {typed} exceeds the {images} training images")
    return replace(recipe, batch_size=min(recipe.batch_size, images))
