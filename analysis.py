"""Show what a trained network gets wrong on the test images and why, and picture the worst."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
from itertools import zip_longest

import torch

import data
from digits import confusion, gallery, pictures, traits
from model import activations, evaluate, load_with_test_split, occlusion_sensitivity
from plumbing import devices
from plumbing.files import check_writable, replacing
from recipes import learning_rate


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser)
    cli.add_checkpoint(parser)
    devices.add_flags(parser)
    parser.add_argument(
        "--count",
        type=cli.between(1, 1000, int),
        default=10,
        help="mistakes to picture, the most confident ones (default: %(default)s)",
    )
    parser.add_argument("--true", help="class of the mistakes to picture, its name (default: any)")
    parser.add_argument("--predicted", help="class that they were taken for (default: any)")
    parser.add_argument(
        "--output",
        type=cli.path,
        default="misclassified_samples",
        help="folder of the pictures (default: %(default)s)",
    )
    return parser.parse_args()


def check(args, class_names):
    """InputError if a class has another name, or the pictures or the page could not be written."""
    for flag, name in ("--true", args.true), ("--predicted", args.predicted):
        if name not in (None, *class_names):
            names = ", ".join(class_names)
            raise cli.InputError(f"{flag} {name!r} is not one of the classes: {names}")
    check_writable(args.output / gallery.CONTACT_SHEET)
    page = args.output / gallery.PAGE
    check_writable(page)
    if page.exists() and gallery.TITLE not in page.read_text("utf-8", errors="replace"):
        raise cli.InputError(f"{page} is not from an earlier analysis: choose another --output")


def load_training(dataset, validation):
    """The training data.Split; where there is none, say so and return one without images."""
    try:
        return data.load(dataset, "train", validation)
    except cli.InputError as error:  # A single file has test images alone.
        print(f"\nno traits, for want of training images to compare with: {error}")
        no_images = torch.empty(0, 28, 28, dtype=torch.uint8)
        return data.Split(no_images, torch.empty(0, dtype=torch.int64), [])


def find_traits(mistakes, test, training):
    """All mistakes, with traits where training images tell; print how often each trait is seen."""
    if not len(training.labels):
        return mistakes
    comparison = traits.compare(test.images, test.labels, training.images, training.labels)
    wrong = torch.zeros(len(test.labels), dtype=bool)
    wrong[[mistake.index for mistake in mistakes]] = True
    print(f"\n{'trait':14}  mistakes  correct  excess  ratio  95 % interval")
    for row in traits.frequencies(comparison, wrong):
        print(
            f"{row.trait:14}  {row.mistakes:8.1%}  {row.correct:7.1%}  "
            f"{row.mistakes - row.correct:6.1%}  {row.ratio:5.2f}  {row.low:.2f} to {row.high:.2f}"
        )
    return [m._replace(trait=traits.describe(comparison, m.index)) for m in mistakes]


def draw_learning_curve(checkpoint):
    """A picture of the loss, the accuracy and the learning rate over a training run."""
    history, highest = checkpoint.history, checkpoint.settings["learning_rate"]
    # How many steps an epoch had is not in the checkpoint; the curve is the same with any number.
    steps = 1000 * checkpoint.settings["epochs"]
    passed = torch.linspace(0, len(history), 501, dtype=torch.float64).tolist()
    return pictures.learning_curve(
        [entry["loss"] for entry in history],
        [entry["test_accuracy"] for entry in history],
        [(epochs, learning_rate(1000 * epochs, steps, highest)) for epochs in passed],
        highest,
        checkpoint.judged_by,
    )


def fill_page(about, mistakes, counts, model, logits, test, training):
    """The page of the mistakes, a string; test and training are data.Splits."""
    mistakes = mistakes[: gallery.MOST]
    indices = [mistake.index for mistake in mistakes]
    misread, true, read = (each[indices] for each in (test.images, test.labels, logits.argmax(1)))
    alike = gallery.nearest(activations(model, misread), activations(model, training.images))
    found = alike, training.labels[alike], occlusion_sensitivity(model, misread, read, true)
    rows = gallery.page_rows(mistakes, test.labels, logits, *found)
    images = torch.cat([misread[:, None], training.images[alike]], 1)
    return gallery.fill_page(about, test.class_names, counts, rows, images)


def write(folder, drawn, page):
    """Write pictures by their names and the page; pictures that an earlier run left are removed."""
    for name, picture in drawn.items():
        with replacing(folder / name) as file:
            picture.save(file, "png")
    for path in folder.iterdir():
        if path.name not in drawn and gallery.PICTURE.fullmatch(path.name):
            path.unlink()
    with replacing(folder / gallery.PAGE) as file:
        file.write(page.encode())


def print_files(names, mistakes, args):
    """Print the path of each file and, of the mistakes that come first, the trait."""
    kind = "mistakes"
    if args.true is not None:
        kind += f" of {args.true}"
    if args.predicted is not None:
        kind += f" read as {args.predicted}"
    print(f"\nthe most confident {kind}:" if mistakes else f"\nno {kind}, so no pictures of any")
    for name, mistake in zip_longest(names, mistakes):
        print(f"{args.output / name}  {mistake.trait}" if mistake else args.output / name)
    if len(mistakes) > gallery.ON_SHEET:
        print(f"{gallery.CONTACT_SHEET} holds the first {gallery.ON_SHEET}")
    if 0 < len(mistakes) < args.count:
        print(f"these are all: there are fewer than {args.count} {kind}")
    print(args.output / gallery.PAGE)


def main():
    args = parse_args()
    device = devices.choose(args.device, args.threads)
    model, checkpoint, test = load_with_test_split(args.checkpoint, args.dataset)
    check(args, test.class_names)
    dataset = args.dataset or checkpoint.dataset
    validation = checkpoint.validation(dataset)
    images = f"{len(test.labels):,} {test.name} images"
    cli.show(device=devices.describe(device))
    cli.show(checkpoint=f"{args.checkpoint}: {checkpoint.summary}", dataset=f"{dataset}: {images}")

    result = evaluate(model.to(device), test.images.to(device), test.labels.to(device))
    interval = "95 % interval {:.2%} to {:.2%}".format(*result.interval)
    cli.show(accuracy=f"{result.accuracy:.2%} ({interval}), {result.errors:,} errors")
    logits = result.logits.cpu()
    counts = torch.bincount(10 * test.labels + logits.argmax(1), minlength=100).view(10, 10)
    print("", *confusion.report(counts, test.class_names), sep="\n")
    mistakes = gallery.find_mistakes(logits, test.labels, test.class_names)
    training = load_training(dataset, validation)
    mistakes = find_traits(mistakes, test, training)

    chosen = gallery.choose(mistakes, args.count, args.true, args.predicted)
    drawn = gallery.picture_mistakes(chosen, test.images, test.class_names)
    drawn["confusion_matrix.png"] = confusion.draw(counts, test.class_names)
    drawn["learning_curve.png"] = draw_learning_curve(checkpoint)
    weights, _, votes, _ = (parameter.detach().cpu() for parameter in model.parameters())
    drawn["hidden_units.png"] = pictures.hidden_units(weights, votes, test.class_names)
    about = (
        f"The network reads {result.accuracy:.2%} of the {images} of {dataset} right"
        f"{checkpoint.taken_out}."
    )
    page = fill_page(about, mistakes, counts, model.cpu(), logits, test, training)
    write(args.output, drawn, page)
    print_files(drawn, chosen, args)
    cli.print_json(
        args.json,
        test_accuracy=result.accuracy,
        standard_error=math.sqrt(result.accuracy * (1 - result.accuracy) / len(test.labels)),
        interval=result.interval,
        errors=result.errors,
        images=len(test.labels),
        confusion=counts.tolist(),
        classes=confusion.per_class(counts, test.class_names),
        worst=[mistake._asdict() for mistake in chosen],
        output=str(args.output),
    )


if __name__ == "__main__":
    cli.run(main)
