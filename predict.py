"""Read pictures of handwritten digits with a trained network."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import numpy as np
import torch
from PIL import Image

import data
from digits import scan
from digits.frame import Frame
from model import advice, load_checkpoint
from plumbing.files import check_writable, replacing


def stack(lines):
    """What a network takes, float32 [N, 1, 28, 28], of the images that scan.read() finds."""
    return data.to_float(torch.from_numpy(np.stack([image for line in lines for image in line])))


@torch.inference_mode()
def predict(model, lines, class_names):
    """What a model on the CPU reads in the images that scan.read() finds, a dict for --json."""
    images = stack(lines)
    probabilities = model(images).double().softmax(1)
    (first, second), classes = (values.unbind(1) for values in probabilities.topk(2))
    # The second best reading differs in the one image of which the network is least sure.
    doubtful = (second / first).argmax().item()
    other, likely = classes[0].clone(), first.clone()
    other[doubtful], likely[doubtful] = classes[1][doubtful], second[doubtful]

    def words(classes):
        names = iter([class_names[index] for index in classes.tolist()])
        return " ".join("".join(next(names) for _ in line) for line in lines)

    return {
        "prediction": words(classes[0]),  # class names, and a space between two lines of digits
        "probability": first.prod().item(),  # that all of them are right
        "runner_up": words(other),
        "runner_up_probability": likely.prod().item(),
        # Of all ten classes; of several digits a list of such lists.
        "probabilities": probabilities.tolist() if len(images) > 1 else probabilities[0].tolist(),
    }


@torch.inference_mode()
def picture_input(model, lines):
    """The images that scan.read() finds as the network sees them, in a row: a PIL image."""
    seen = (255 * model.preprocess(stack(lines))).round().byte()[:, 0]
    return Image.fromarray(np.hstack(seen.numpy()))


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    parser.add_argument(
        "image",
        metavar="IMAGE",
        type=cli.path,
        nargs="+",
        help="picture of a digit, or of several in lines: PNG, JPEG, BMP, GIF, TIFF or WebP, dark "
        "on light or light on dark",
    )
    parser.add_argument(
        "--save-input",
        metavar="FOLDER",
        type=cli.path,
        help="folder for the 28 x 28 images that the network saw, upright if it deslants them",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    model, checkpoint = load_checkpoint(args.checkpoint)
    if args.save_input:
        check_writable(args.save_input / "image.png")

    cli.show(checkpoint=f"{args.checkpoint}: {checkpoint.summary}", advice=advice(checkpoint))
    names = checkpoint.class_names
    width = max(len("prediction"), *(len(name) for name in names))
    print(
        f"\n{'prediction':{width}}  probability  {'runner-up':{width}}  probability  picture",
        flush=True,
    )
    frame, digits = Frame(**checkpoint.frame), names == data.DIGITS
    predictions, failures = [], []
    for number, path in enumerate(args.image, start=1):
        try:
            lines = scan.read(path, frame, digits)
        except cli.InputError as error:
            failures.append(f"{path}: {error}")
            cli.complain(failures[-1])
            continue
        found = predict(model, lines, names)
        predictions.append({"path": str(path), **found})
        print(
            f"{found['prediction']:{width}}  {found['probability']:11.2%}  "
            f"{found['runner_up']:{width}}  {found['runner_up_probability']:11.2%}  {path}",
            flush=True,  # in turn with the sentences about the others
        )
        if args.save_input:
            name = f"{number:02}_{path.stem[:50]}_28x28.png"
            with replacing(args.save_input / name) as file:
                picture_input(model, lines).save(file, "png")
    cli.print_json(args.json, class_names=names, predictions=predictions, failures=failures)
    return 2 if failures else 0


if __name__ == "__main__":
    cli.run(main)
