"""Show what a trained network gets wrong on the test images and why, and picture the worst."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
import re
from itertools import islice, zip_longest
from typing import NamedTuple

import torch

import data
from digits import gallery, traits
from digits.pictures import confusion_matrix, contact_sheet, enlarge, line_chart, stack
from model import activations, evaluate, load_with_test_split
from plumbing import devices
from plumbing.files import check_writable, replacing
from recipes import learning_rate

CONFUSIONS = 10  # pairs of classes to list
SCALE = 10  # pixels of a picture per pixel of its image
ON_SHEET = 100  # pictures on a contact sheet: with more it could hardly be looked at
CONTACT_SHEET = "contact_sheet.png"
PAGE = "index.html"  # of all mistakes
PICTURE = re.compile(
    rf"\d+_true-.*_predicted-.*_probability-[01]\.\d{{4}}_index-\d+\.png|{re.escape(CONTACT_SHEET)}"
)


class Mistake(NamedTuple):
    """A test image that the network takes for another class than its own."""

    index: int
    true: str  # class names
    predicted: str
    probability: float  # that the network gives the predicted class
    trait: str = "unknown"  # what is unusual about it

    def file_name(self, rank, digits):
        true, predicted = (re.sub(r"\W+", "-", name)[:20] for name in (self.true, self.predicted))
        return (
            f"{rank:0{digits}}_true-{true}_predicted-{predicted}"
            f"_probability-{self.probability:.4f}_index-{self.index}.png"
        )

    def caption(self, rank):
        trait = self.trait.replace(", ", ",\n")
        return (
            f"{rank}. true {self.true[:25]}\nread as {self.predicted[:25]}\n"
            f"probability {self.probability:.4f}, image {self.index}\ntrait: {trait}"
        )


def find_mistakes(logits, labels, class_names):
    """All mistakes, the most confident first, ties by index; logits [N, 10], labels int64 [N]."""
    predictions = logits.argmax(1)
    # In float32 the probabilities of many confident mistakes would be rounded to exactly 1.
    probabilities = logits.double().softmax(1).amax(1)
    wrong = (predictions != labels).nonzero().flatten()
    order = probabilities[wrong].argsort(descending=True, stable=True)
    return [
        Mistake(
            index,
            class_names[labels[index]],
            class_names[predictions[index]],
            probabilities[index].item(),
        )
        for index in wrong[order].tolist()
    ]


def check_class(flag, name, class_names):
    """InputError where a class is asked for that is none."""
    if name is not None and name not in class_names:
        names = ", ".join(class_names)
        raise cli.InputError(f"{flag} {name!r} is none of the classes: {names}")


def choose(mistakes, count, true, predicted):
    """The first of the mistakes of one class, and of those taken for one; None is any class."""
    chosen = (m for m in mistakes if true in (None, m.true) and predicted in (None, m.predicted))
    return list(islice(chosen, count))


def matrix_labels(class_names):
    """Labels of the rows and of the columns of a confusion matrix, in which names may be long."""
    numbers = [str(number) for number in range(10)]
    if max(map(len, class_names)) <= 5:
        return class_names, class_names
    names = zip(numbers, class_names, strict=True)
    return [f"{number} {name[:25]}" for number, name in names], numbers


def print_report(confusion, class_names):
    """Print the errors per class, the matrix int64 [true, predicted], and its largest errors."""
    width = max(len("class"), *(len(name) for name in class_names))

    print(f"\n{'class':{width}}  images  errors  error rate")
    for index, name in enumerate(class_names):
        images = confusion[index].sum().item()
        errors = images - confusion[index, index].item()
        if images:
            print(f"{name:{width}}  {images:6,}  {errors:6,}  {errors / images:10.2%}")

    rows, columns = matrix_labels(class_names)
    margin = max(map(len, rows))
    print(f"\n{'true':{margin}}  predicted\n{'':{margin}}", *(f"{c:>6}" for c in columns))
    for row, counts in zip(rows, confusion.tolist(), strict=True):
        print(f"{row:{margin}}", *(f"{count or '.':>6}" for count in counts))

    wrong = confusion - confusion.diag().diag()
    frequent = wrong.flatten().argsort(descending=True, stable=True)[:CONFUSIONS]
    print(f"\n{'true':{width}}  {'predicted':{max(width, 9)}}  errors")
    for true, predicted in zip((frequent // 10).tolist(), (frequent % 10).tolist(), strict=True):
        if errors := wrong[true, predicted].item():
            name, other = class_names[true], class_names[predicted]
            print(f"{name:{width}}  {other:{max(width, 9)}}  {errors:6,}")


def load_training(dataset, validation):
    """The training data.Split, or None where there is none; print that there is none."""
    try:
        return data.load(dataset, "train", validation)
    except cli.InputError as error:  # A single file has test images alone.
        print(f"\nno traits, for want of training images to compare with: {error}")


def find_traits(mistakes, test, training, wrong):
    """The mistakes with traits; print how often each is seen among all of wrong, bool [N]."""
    comparison = traits.compare(test.images, test.labels, training.images, training.labels)
    print(f"\n{'trait':14}  mistakes  correct  excess  ratio  95 % interval")
    for row in traits.frequencies(comparison, wrong):
        print(
            f"{row.trait:14}  {row.mistakes:8.1%}  {row.correct:7.1%}  "
            f"{row.mistakes - row.correct:6.1%}  {row.ratio:5.2f}  {row.low:.2f} to {row.high:.2f}"
        )
    return [m._replace(trait=traits.describe(comparison, m.index)) for m in mistakes]


def picture_mistakes(mistakes, images):
    """{file name: picture} of each mistake, and of the first ON_SHEET of them on one sheet."""
    digits = max(2, len(str(len(mistakes))))
    ranked = list(enumerate(mistakes, start=1))
    pictures = {m.file_name(rank, digits): enlarge(images[m.index], SCALE) for rank, m in ranked}
    if mistakes:
        captions = [mistake.caption(rank) for rank, mistake in ranked[:ON_SHEET]]
        shown = list(pictures.values())[:ON_SHEET]
        pictures[CONTACT_SHEET] = contact_sheet(shown, captions, 5 if len(shown) <= 25 else 10)
    return pictures


def picture_learning(checkpoint):
    """A picture of the loss, the test accuracy and the learning rate over a training run."""
    history, highest = checkpoint.history, checkpoint.settings["learning_rate"]
    losses = [(entry["epoch"], entry["loss"]) for entry in history]
    accuracies = [(entry["epoch"], 100 * entry["test_accuracy"]) for entry in history]
    # How many steps an epoch had is not in the checkpoint; the curve is the same with any number.
    steps = 1000 * checkpoint.settings["epochs"]
    passed = torch.linspace(0, len(history), 501, dtype=torch.float64).tolist()
    rates = [(epochs, learning_rate(1000 * epochs, steps, highest)) for epochs in passed]
    (_, loss), (_, accuracy) = losses[-1], accuracies[-1]
    most, least = max(y for _, y in losses), min(99, *(y for _, y in accuracies))
    charts = [
        (f"training loss in nats, {loss:.4f} in the last epoch", losses, (0, most)),
        (f"test accuracy in %, {accuracy:.2f} after the last epoch", accuracies, (least, 100)),
        (f"learning rate, {highest:g} at its highest", rates, (0, highest)),
    ]
    return stack([line_chart(*chart, unit="epoch") for chart in charts])


def write_pictures(folder, pictures):
    """Write pictures by their names; those of mistakes that an earlier run left are removed."""
    for name, picture in pictures.items():
        with replacing(folder / name) as file:
            picture.save(file, "png")
    for path in folder.iterdir():
        if path.name not in pictures and PICTURE.fullmatch(path.name):
            path.unlink()


def check_page(path):
    """InputError if the page could not be written later, or would replace another's page."""
    check_writable(path)
    if path.exists() and gallery.TITLE not in path.read_text("utf-8", errors="replace"):
        raise cli.InputError(f"{path} is not from an earlier analysis: choose another --output")


def write_page(path, about, mistakes, confusion, model, logits, test, training):
    """Write the page of the mistakes; training, a data.Split, is None where there is none."""
    mistakes = mistakes[: gallery.MOST]
    indices = torch.tensor([mistake.index for mistake in mistakes], dtype=torch.int64)
    images, alike = test.images[indices, None], torch.empty(len(mistakes), 0, dtype=torch.int64)
    if training:
        alike = gallery.nearest(
            activations(model.cpu(), test.images[indices]), activations(model, training.images)
        )
        images = torch.cat([images, training.images[alike]], 1)
    rows = [
        {
            "index": mistake.index,
            "true": test.labels[mistake.index].item(),
            "predicted": logits[mistake.index].argmax().item(),
            "probabilities": logits[mistake.index].double().softmax(0).round(decimals=4).tolist(),
            "trait": mistake.trait,
            "alike": [{"index": k, "label": training.labels[k].item()} for k in others],
        }
        for mistake, others in zip(mistakes, alike.tolist(), strict=True)
    ]
    page = gallery.fill_page(about, test.class_names, confusion, rows, images)
    with replacing(path) as file:
        file.write(page.encode())


def print_pictures(folder, names, mistakes, args):
    kind = "mistakes"
    if args.true is not None:
        kind += f" of {args.true}"
    if args.predicted is not None:
        kind += f" read as {args.predicted}"
    print(f"\nthe most confident {kind}:" if mistakes else f"\nno {kind}, so no pictures of any")
    for name, mistake in zip_longest(names, mistakes):
        print(f"{folder / name}  {mistake.trait}" if mistake else folder / name)
    if len(mistakes) > ON_SHEET:
        print(f"{CONTACT_SHEET} holds the first {ON_SHEET}")
    if 0 < len(mistakes) < args.count:
        print(f"these are all: there are fewer than {args.count} {kind}")


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


def main():
    args = parse_args()
    device = devices.choose(args.device, args.threads)
    model, checkpoint, test = load_with_test_split(args.checkpoint, args.dataset)
    check_class("--true", args.true, test.class_names)
    check_class("--predicted", args.predicted, test.class_names)
    dataset = args.dataset or checkpoint.dataset
    validation = checkpoint.validation(dataset)
    images = f"{len(test.labels):,} {'validation' if validation else 'test'} images"
    check_writable(args.output / CONTACT_SHEET)
    check_page(args.output / PAGE)

    result = evaluate(model.to(device), test.images.to(device), test.labels.to(device))
    low, high = result.interval
    logits = result.logits.cpu()
    predictions = logits.argmax(1)
    cli.show(
        device=devices.describe(device),
        checkpoint=f"{args.checkpoint}: {checkpoint.summary}",
        dataset=f"{dataset}: {images}",
        accuracy=f"{result.accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"{result.errors:,} errors",
    )
    confusion = torch.bincount(10 * test.labels + predictions, minlength=100).view(10, 10)
    print_report(confusion, test.class_names)
    mistakes = find_mistakes(logits, test.labels, test.class_names)
    if training := load_training(dataset, validation):
        mistakes = find_traits(mistakes, test, training, wrong=predictions != test.labels)
    chosen = choose(mistakes, args.count, args.true, args.predicted)
    pictures = picture_mistakes(chosen, test.images) | {
        "confusion_matrix.png": confusion_matrix(confusion, *matrix_labels(test.class_names)),
        "learning_curve.png": picture_learning(checkpoint),
    }
    write_pictures(args.output, pictures)
    upright = ", once their slant is taken out" * model.deslant
    about = f"The network reads {result.accuracy:.2%} of the {images} of {dataset} right{upright}."
    write_page(args.output / PAGE, about, mistakes, confusion, model, logits, test, training)
    print_pictures(args.output, pictures, chosen, args)
    print(args.output / PAGE)
    cli.print_json(
        args.json,
        test_accuracy=result.accuracy,
        standard_error=math.sqrt(result.accuracy * (1 - result.accuracy) / len(test.labels)),
        interval=result.interval,
        errors=result.errors,
        images=len(test.labels),
        confusion=confusion.tolist(),
        worst=[mistake._asdict() for mistake in chosen],
        output=str(args.output),
    )


if __name__ == "__main__":
    cli.run(main)
