"""Read pictures of one handwritten digit each with a trained network."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

import data
from digits import scan
from model import load_checkpoint
from plumbing.files import check_writable, replacing


class Prediction(NamedTuple):
    """What the network reads in a picture."""

    path: str
    prediction: str  # class names
    probability: float
    runner_up: str
    runner_up_probability: float
    probabilities: list  # of all ten classes


@torch.inference_mode()
def predict(model, image, path, class_names):
    """The Prediction of a model on the CPU for an image uint8 [28, 28] from a path."""
    logits = model(data.to_float(torch.from_numpy(image).unsqueeze(0)))
    probabilities = logits.double().softmax(1)[0]
    (first, second), classes = (tensor.tolist() for tensor in probabilities.topk(2))
    names = (class_names[index] for index in classes)
    return Prediction(str(path), next(names), first, next(names), second, probabilities.tolist())


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    parser.add_argument(
        "image",
        metavar="IMAGE",
        type=Path,
        nargs="+",
        help="picture of one digit: PNG, JPEG, BMP, GIF, TIFF or WebP, dark on light or light on "
        "dark",
    )
    parser.add_argument(
        "--save-input",
        metavar="FOLDER",
        type=Path,
        help="folder for the 28 x 28 images that the network read",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    model, checkpoint = load_checkpoint(args.checkpoint)
    if args.save_input:
        check_writable(args.save_input / "image.png")

    cli.show(checkpoint=f"{args.checkpoint}: {checkpoint.summary}")
    width = max(len("prediction"), *(len(name) for name in checkpoint.class_names))
    print(
        f"\n{'prediction':{width}}  probability  {'runner-up':{width}}  probability  picture",
        flush=True,
    )
    predictions, failures = [], []
    for number, path in enumerate(args.image, start=1):
        try:
            image = scan.read(path)
        except ValueError as error:
            cli.complain(error)
            failures.append(str(error))
            continue
        found = predict(model, image, path, checkpoint.class_names)
        predictions.append(found._asdict())
        print(
            f"{found.prediction:{width}}  {found.probability:11.2%}  "
            f"{found.runner_up:{width}}  {found.runner_up_probability:11.2%}  {path}",
            flush=True,  # in turn with the sentences about the others
        )
        if args.save_input:
            name = f"{number:02}_{path.stem[:50]}_28x28.png"
            with replacing(args.save_input / name) as file:
                Image.fromarray(image).save(file, "png")
    names = checkpoint.class_names
    cli.print_json(args.json, class_names=names, predictions=predictions, failures=failures)
    return 2 if failures else 0


if __name__ == "__main__":
    cli.run(main)
