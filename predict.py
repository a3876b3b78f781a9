"""Read pictures of handwritten digits with a trained network."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import csv
import functools
import io
import os

import numpy as np
import torch
from PIL import Image

import data
from digits import scan
from digits.frame import Frame
from model import TURNS, advice, judge, load_checkpoint
from plumbing.files import PICTURE_FORMATS, check_writable, replacing

# Of the table that --output writes; all but the last have the names that they have with --json.
COLUMNS = "path", "prediction", "probability", "runner_up", "runner_up_probability", "failure"
NO_DIGIT = "no digit"
HEAD = ("\ufeff" + ",".join(COLUMNS)).encode()  # by which a table is known, and known as UTF-8


@torch.inference_mode()
def predict(model, reading, class_names, threshold=0.0):
    """What a model on the CPU reads in what scan.read() finds, a dict for --json.

    A threshold of 0 says that the model has not learnt what is no digit, so one image is a digit.
    """
    images = np.stack([image for line in reading.lines for image in line])
    turns = TURNS if class_names == data.DIGITS else [0]
    probabilities = torch.from_numpy(judge(model, images, turns))
    (first, second), classes = (values.unbind(1) for values in probabilities.topk(2))
    # The second best reading differs in the one image of which the network is least sure.
    doubtful = (second / first).argmax().item()
    other, likely = classes[0].clone(), first.clone()
    other[doubtful], likely[doubtful] = classes[1][doubtful], second[doubtful]

    def words(classes):
        names = iter([class_names[index] for index in classes.tolist()])
        return " ".join("".join(next(names) for _ in line) for line in reading.lines)

    found = {
        "prediction": words(classes[0]),  # class names, and a space between two lines of digits
        "probability": first.prod().item(),  # that all of them are right
        "runner_up": words(other),
        "runner_up_probability": likely.prod().item(),
        # Of all ten classes; of several digits a list of such lists.
        "probabilities": probabilities.tolist() if len(images) > 1 else probabilities[0].tolist(),
    }
    if reading.evidence > 0 or (threshold == 0 and len(images) == 1):
        return found
    # The network has no output for that, so nothing tells how probable it is.
    none = {"prediction": NO_DIGIT, "probability": None}
    likeliest = {"runner_up": found["prediction"], "runner_up_probability": found["probability"]}
    return found | none | likeliest


def picture_input(lines):
    """The images in what scan.read() finds, in a row, a PIL image.

    Their moments are not taken out yet: to train on them does that, and to read them again.
    """
    return Image.fromarray(np.hstack([image for line in lines for image in line]))


def find_pictures(path):
    """The pictures in a folder, by name, not those in folders in it; of a file, the file."""
    if not os.path.isdir(path):  # path.is_dir() fails where a name is too long
        return [path]
    kinds = {end for end, kind in Image.registered_extensions().items() if kind in PICTURE_FORMATS}
    kinds |= {".avif", ".heic", ".heif"}  # of which scan.read() says what to do
    files = (file for file in path.iterdir() if file.suffix.lower() in kinds)
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def read(model, checkpoint, path):
    """(what predict() finds in a picture and its path, a dict; the images, line by line).

    Where nothing can be read, the dict has the path and the failure, which is also printed, and the
    rest is None.
    """
    threshold = checkpoint.settings["threshold"]
    try:
        if os.path.isdir(path):
            raise cli.InputError(f"no picture ({', '.join(PICTURE_FORMATS)}) in this folder")
        digits = checkpoint.class_names == data.DIGITS
        judge_images = functools.partial(judge, model) if digits else None
        reading = scan.read(path, Frame(**checkpoint.frame), judge_images, threshold)
    except cli.InputError as error:
        cli.complain(f"{path}: {error}")
        return {"path": str(path), "failure": cli.sentence(error)}, None
    found = predict(model, reading, checkpoint.class_names, threshold)
    return {"path": str(path), **found}, reading.lines


def write_table(path, answers):
    """Write a row for each of the answers, dicts with some of COLUMNS, as a spreadsheet opens it.

    Text that a spreadsheet would take for a formula comes after an apostrophe.
    """
    table = io.StringIO()
    rows = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
    rows.writeheader()
    for answer in answers:
        formulas = {
            key: f"'{value}"
            for key, value in answer.items()
            if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
        }
        rows.writerow(answer | formulas)
    with replacing(path) as file:
        file.write(table.getvalue().encode("utf-8-sig", "backslashreplace"))


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    parser.add_argument(
        "image",
        metavar="IMAGE",
        type=cli.path,
        nargs="+",
        help="picture of a digit, or of several in lines: PNG, JPEG, BMP, GIF, TIFF or WebP, dark "
        "on light or light on dark; or a folder of pictures",
    )
    parser.add_argument(
        "--save-input",
        metavar="FOLDER",
        type=cli.path,
        help="folder for the 28 x 28 images of which the network was asked",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=cli.path,
        help="table of all answers, such as answers.csv, for a spreadsheet",
    )
    return parser.parse_args()


def check(args):
    """InputError if a file that the flags name could not be written, or must not be replaced."""
    if args.save_input:
        check_writable(args.save_input / "image.png")
    if args.output:
        check_writable(args.output)
        if args.output.exists() and not args.output.read_bytes().startswith(HEAD):
            raise cli.InputError(f"{args.output} is no earlier table: choose another --output")


def main():
    args = parse_args()
    model, checkpoint = load_checkpoint(args.checkpoint)
    check(args)

    cli.show(checkpoint=f"{args.checkpoint}: {checkpoint.summary}", advice=advice(checkpoint))
    names = checkpoint.class_names
    width = max(len("prediction"), *(len(name) for name in names))
    print(
        f"\n{'prediction':{width}}  probability  {'runner-up':{width}}  probability  picture",
        flush=True,
    )
    paths = [each for path in args.image for each in find_pictures(path) or [path]]
    answers = []
    for number, path in enumerate(paths, start=1):
        found, lines = read(model, checkpoint, path)
        answers.append(found)
        if not lines:
            continue
        probability = "" if found["probability"] is None else f"{found['probability']:.2%}"
        print(
            f"{found['prediction']:{width}}  {probability:>11}  "
            f"{found['runner_up']:{width}}  {found['runner_up_probability']:11.2%}  {path}",
            flush=True,  # in turn with the sentences about the others
        )
        if args.save_input:
            name = f"{number:02}_{path.stem[:50]}_28x28.png"
            with replacing(args.save_input / name) as file:
                picture_input(lines).save(file, "png")
    if args.output:
        write_table(args.output, answers)
        print(f"\n{args.output}")
    if any(each.get("prediction") == NO_DIGIT for each in answers):
        least = checkpoint.settings["threshold"] or scan.USUAL
        print(f"\n{NO_DIGIT}: nothing, or too little, is one with a probability of {least:.0%}")
    failures = [f"{each['path']}: {each['failure']}" for each in answers if "failure" in each]
    predictions = [each for each in answers if "failure" not in each]
    cli.print_json(args.json, class_names=names, predictions=predictions, failures=failures)
    return 2 if failures else 0


if __name__ == "__main__":
    cli.run(main)
