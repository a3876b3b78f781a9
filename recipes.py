"""The settings of a training run: what each means, named recipes of them, and their flags."""

import argparse
from dataclasses import MISSING, dataclass, field, fields, replace

from plumbing import cli

WARMUP = 0.1  # share of a run in which the learning rate rises
# Probability of the likeliest digit, below which an image is no digit for a network that knows such
# images. It is chosen on MNIST's validation images, of which everyday refuses fewer than 1 in 1000.
THRESHOLD = 0.25
MOMENTS = "taken out of images first: 0 none, 1 the slant, 2 half of width and height, too"
KEPT = "share of Adam's mean {} that a step keeps"


def setting(meaning, low, high, default=MISSING, group="recipe"):
    """A field of Settings: a number from low to high, and what it means, with its unit.

    Those of the groups "recipe" and "distortion" are what a recipe is made of. Those of "run" have
    a flag, too, and those of "machine" are only written down.
    """
    metadata = {"meaning": meaning, "range": (low, high), "group": group}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a training run.

    A default is also what checkpoints of earlier versions mean that lack the setting.
    """

    recipe: str  # its name
    epochs: int = setting("passes over the training images", 1, 10**9)
    batch_size: int = setting("images a step", 1, 10**9)
    learning_rate: float = setting("at its highest", 1e-9, 1e38)  # float32 ends there
    beta1: float = setting(KEPT.format("of the gradient"), 0, 0.99999, 0.9)
    beta2: float = setting(KEPT.format("of the squared gradient"), 0, 0.99999, 0.999)
    drawn: int = setting("drawn digits an epoch, beside the training images", 0, 10**6, 0)
    nothing: int = setting("drawn images of no digit an epoch, beside these", 0, 10**6, 0)
    moments: int = setting(MOMENTS, 0, 2, 0)

    rotation: float = setting("degrees either way", 0, 180, 0.0, "distortion")
    slant: float = setting("degrees either way", 0, 80, 0.0, "distortion")
    smallest: float = setting("factor to which width and height shrink", 0.1, 1, 1.0, "distortion")
    largest: float = setting("factor to which width and height grow", 1, 10, 1.0, "distortion")
    shift: float = setting("pixels each way", 0, 28, 0.0, "distortion")
    occlusion: float = setting("share of images with a patch wiped out", 0, 1, 0.0, "distortion")
    extra_writing: float = setting("share of images with a stray stroke", 0, 1, 0.0, "distortion")

    validation: int = setting(
        "training images held out and read in place of the test images", 0, 10**9, 0, "run"
    )
    seed: int = setting("of first weights, order and distortions", 0, 2**32 - 1, 0, "run")
    by_validation: int = setting("1: no test images judge it", 0, 1, 0, "machine")
    stratified: int = setting("1: validation images of each class", 0, 1, 0, "machine")
    checksum: int = setting("CRC-32 of the training images", 0, 2**32 - 1, 0, "machine")
    threads: int = setting("of the CPU, on which the last bits depend", 0, 10**9, 0, "machine")
    earlier_epochs: int = setting(
        "of the network whose weights were the first ones; 0: random ones", 0, 10**9, 0, "machine"
    )
    inverted: int = setting("1: the dataset's images are dark on light", 0, 1, 0, "machine")
    threshold: float = setting("less probable digits are none; 0: never", 0, 1, 0.0, "machine")


# Chosen on a validation split, the last 10,000 training images; "everyday" also on drawings that
# strangers made.
# A run of quick has 400 steps only, so Adam's means must adapt quickly.
QUICK = Settings(
    recipe="quick", epochs=4, batch_size=600, learning_rate=0.022, beta1=0.6, beta2=0.88
)
ACCURATE = Settings(
    recipe="accurate",
    epochs=80,
    batch_size=512,
    learning_rate=0.015,
    moments=2,
    rotation=20,
    slant=20,
    smallest=0.8,
    largest=1.25,
    shift=2,
)
# To read what people write: MNIST's writers are Americans of the 1990s, all with the same pens.
EVERYDAY = replace(ACCURATE, recipe="everyday", epochs=60, drawn=15_000, nothing=5_000)
ROBUST = replace(
    ACCURATE,
    recipe="robust",
    epochs=150,
    rotation=30,
    slant=25,
    smallest=0.55,
    largest=1.35,
    shift=3,
    occlusion=0.3,
    extra_writing=0.3,
)
RECIPES = {recipe.recipe: recipe for recipe in (QUICK, ACCURATE, EVERYDAY, ROBUST)}
DEFAULT = "accurate"


def learning_rate(step, steps, highest):
    """The rate at a step (from 0): a linear rise during WARMUP, then a linear fall to zero."""
    rise = (step + 1) / (WARMUP * steps)
    fall = (steps - step) / ((1 - WARMUP) * steps)
    return highest * min(rise, fall, 1)


def numbers(*groups):
    """The fields of Settings that are numbers, those of some groups or all."""
    found = [each for each in fields(Settings) if each.metadata]
    return [each for each in found if not groups or each.metadata["group"] in groups]


def describe(settings, group):
    """The numbers of a group in words: "epochs 4, batch size 512, ..."."""
    names = [each.name for each in numbers(group)]
    return ", ".join(f"{name.replace('_', ' ')} {getattr(settings, name):.10g}" for name in names)


def complete(state):
    """The state in a checkpoint, a dict, with all settings: defaults for those that it lacks.

    ValueError where one has a value that no flag takes.
    """
    # As earlier versions called them; at first the distortion and the seed stood apart.
    saved = state.pop("recipe", None) or state.get("settings")
    distortion = saved.get("distortion", {}) if isinstance(saved, dict) else None
    if not isinstance(distortion, dict):
        raise ValueError("it has no settings")
    earlier = {"recipe": saved.get("name"), "inverted": saved.get("turned", 0)}
    earlier["moments"] = saved.get("deslant", 0)
    saved = {**earlier, "seed": state.pop("seed", 0), **saved, **distortion}
    if type(saved["recipe"]) is not str:
        raise ValueError("its recipe has no name")
    settings = {"recipe": saved["recipe"]}
    for each in numbers():
        value = settings[each.name] = saved.get(each.name, each.default)
        low, high = each.metadata["range"]
        if type(value) not in {int, each.type} or not low <= value <= high:
            raise ValueError(f"its {each.name} is no number from {low:g} to {high:g}")
    return state | {"settings": settings}


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
    """Add the flags of a training run; they are None, --seeds (), where they are not given."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help=f"named settings (default: {DEFAULT}), of which the flags below replace single ones",
    )
    for each in numbers("recipe", "distortion", "run"):
        values = {name: getattr(recipe, each.name) for name, recipe in RECIPES.items()}
        usual = ", ".join(f"{name} {value:g}" for name, value in values.items())
        if len(set(values.values())) == 1:
            usual = f"default: {values[DEFAULT]:g}"
        parser.add_argument(
            f"--{each.name.replace('_', '-')}",
            type=cli.between(*each.metadata["range"], each.type),
            help=f"{each.metadata['meaning']} ({usual})",
        )
    parser.add_argument(
        "--seeds",
        type=seeds,
        default=(),
        help="a run for each of the seeds 0 to 4 (5) or of a range (3-7), whose checkpoint has the "
        "seed in its name",
    )


def from_flags(args, start=None):
    """The Settings of a recipe, with the numbers that have a flag of their own.

    A Checkpoint to start from decides which moments are taken out, because its weights know images
    of one kind only; InputError where the flag says otherwise.
    """
    given = {each.name: getattr(args, each.name, None) for each in numbers()}
    given = {name: value for name, value in given.items() if value is not None}
    if start:
        moments = start.settings["moments"]
        if given.get("moments", moments) != moments:
            raise cli.InputError(
                f"--moments {args.moments} does not fit --start {args.start}, which was trained "
                f"with --moments {moments}: leave it out"
            )
        earlier = start.settings["earlier_epochs"] + start.epoch
        given |= {"moments": moments, "earlier_epochs": earlier}
    return replace(RECIPES[args.recipe or DEFAULT], **given)


def fit(settings, args, images, digits):
    """The Settings with batches of at most all images, and things, no digits, as they are.

    What was asked for stays; InputError where it is batches of more images.
    """
    if (args.batch_size or args.resume) and settings.batch_size > images:
        raise cli.InputError(
            f"a batch size of {settings.batch_size} exceeds the {images} training images"
        )
    asked_for = args.moments is not None or args.start or args.resume
    moments = settings.moments if digits or asked_for else 0
    return replace(settings, batch_size=min(settings.batch_size, images), moments=moments)
