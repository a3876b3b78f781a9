"""The settings of a training run: named recipes, and the flags that replace their numbers."""

from dataclasses import dataclass, field, fields, replace

import cli
from distort import Distortion


def memory(what, default):
    """A field with a decay rate of Adam."""
    unit = f"share of Adam's mean {what} that a step keeps"
    return field(default=default, metadata={"unit": unit, "range": (0.0, 0.99999)})


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run."""

    epochs: int = field(metadata={"unit": "passes over the training images"})
    batch_size: int = field(metadata={"unit": "images a step"})
    learning_rate: float = field(metadata={"unit": "at its highest"})
    beta1: float = memory("of the gradient", 0.9)
    beta2: float = memory("of its square", 0.999)
    distortion: Distortion = Distortion()


# Chosen on a validation split, the last 10,000 training images.
RECIPES = {
    # Adam's means are to follow within a run of 472 steps.
    "quick": Recipe(epochs=4, batch_size=512, learning_rate=0.02, beta1=0.6, beta2=0.9),
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


def numbers(recipe):
    """The numbers of a Recipe by name, those of its Distortion among them."""
    return {
        name: value
        for name, value in (vars(recipe) | vars(recipe.distortion)).items()
        if name != "distortion"
    }


def flag(name):
    return f"--{name.replace('_', '-')}"


def add_flags(parser):
    """Add --recipe and a flag for each number of a Recipe."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="accurate",
        help="named settings (default: %(default)s), of which the flags below replace single ones",
    )
    for setting in (*fields(Recipe)[:-1], *fields(Distortion)):
        if "range" in setting.metadata:
            kind = cli.number(*setting.metadata["range"])
        else:
            kind = cli.whole_number(1) if setting.type is int else cli.positive_number
        values = ", ".join(f"{key} {numbers(RECIPES[key])[setting.name]:g}" for key in RECIPES)
        text = f"{setting.metadata['unit']} ({values})"
        parser.add_argument(flag(setting.name), type=kind, help=text)


def from_flags(args):
    """The Recipe of that name, with the numbers that have a flag of their own."""
    given = {name: value for name, value in vars(args).items() if value is not None}

    def override(record):
        names = [setting.name for setting in fields(record) if setting.name in given]
        return replace(record, **{name: given[name] for name in names})

    recipe = override(RECIPES[args.recipe])
    return replace(recipe, distortion=override(recipe.distortion))
