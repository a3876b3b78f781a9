"""From pictures of all kinds to the image that the network reads, and to its answer."""

import csv
import functools
import io
import json
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FACTS, save_network
from paper import KINDS, in_place, on_paper, only, page, read_picture, row, sure
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps, features
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

import data
import draw
import predict
import recipes
import robustness
from digits import frame, scan, synthetic, traits
from model import MLP, TURNS
from plumbing import cli


@pytest.fixture(scope="module")
def digits():
    """Images uint8 [200, 28, 28] as `fit` makes them, and labels."""
    images, labels = synthetic.generate(200, seed=3)
    return np.stack([scan.fit(image) for image in images.numpy() / 255]), labels.numpy()


@pytest.fixture
def written(digits):
    """A digit on white paper, 280 x 280, and its image."""
    large = enlarge(digits[0][0])
    return ImageOps.invert(large), scan.fit(np.asarray(large) / 255)


def enlarge(image):
    return Image.fromarray(image).resize((280, 280), Image.Resampling.NEAREST)


def read(picture, name="picture.png", **settings):
    """What scan.read() makes of a PIL image that is written to a file."""
    picture.save(name, **settings)
    return only(scan.read(name, judge=sure))


def read_surely(picture):
    """The same with a judge that knows what is no digit."""
    picture.save("picture.png")
    return only(scan.read("picture.png", judge=sure, threshold=recipes.THRESHOLD))


def difference(image, other):
    return np.abs(image.astype(int) - other)


def test_fit_scales_to_20_pixels_and_centres_the_mass():
    expected = np.zeros((28, 28), np.uint8)
    expected[5:25, 10:20] = 255  # of two places that are as good, the lower and the righter one
    for size in (1, 2, 5, 20, 33):  # twice as high as wide, anywhere
        ink = np.zeros((80, 70))
        ink[7 : 7 + 2 * size, 31 : 31 + size] = 0.3
        assert (scan.fit(ink) == expected).all()
    # An L of 300 pixels. Its middle is (100 * 4.5 + 200 * 14.5) / 300 = 11.2 from the top and
    # (200 * 4.5 + 100 * 14.5) / 300 = 7.8 from the left.
    ink = np.zeros((20, 20))
    ink[:, :10] = ink[10:] = 1
    rows, columns = np.nonzero(scan.fit(ink))
    assert (rows.min(), columns.min()) == (14 - 11, 14 - 8)


def test_fit_keeps_proportions_and_stays_within_the_image():
    ink = np.zeros((100, 300))
    ink[0, :] = ink[:, 0] = 1
    assert [scan.fit(ink).any(axis).sum() for axis in (1, 0)] == [7, 20]
    ink = np.full((20, 20), 1e-9)
    ink[0, 0], ink[19, 19] = 1, 1e-3  # nearly all mass in a corner
    assert np.argwhere(scan.fit(ink)).min() == 8


def test_an_image_as_mnist_has_them_stays_so_but_thin_strokes_of_a_large_one_are_thickened(digits):
    images = digits[0][:80]
    assert all((read(Image.fromarray(image)) == image).all() for image in images)
    large = np.stack([read(enlarge(image)) for image in images])
    before, after = (
        traits.measure(torch.from_numpy(each))["thickness"].numpy() for each in (images, large)
    )
    thick = before > scan.THIN
    assert thick.sum() > 10 and (large[thick] == images[thick]).all()
    lacking = (scan.THIN - before).clip(0)  # of which half is added
    np.testing.assert_allclose(after - before, lacking / 2, atol=0.25)


FORMATS = {"png": "1 L LA P RGB RGBA I;16", "tif": "L RGB RGBA CMYK YCbCr I;16 I F"}
FORMATS |= {"bmp": "L P RGB", "gif": "L P", "jpg": "L RGB CMYK", "webp": "RGB"}
FORMATS |= {"avif": "RGB"} if features.check("avif") else {}


@pytest.mark.parametrize("end, mode", [(end, m) for end in FORMATS for m in FORMATS[end].split()])
def test_formats_and_modes_say_the_same(written, end, mode):
    picture, image = written
    if mode in ("I;16", "I"):
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture = picture.convert(mode, dither=Image.Dither.NONE)
    image = scan.fit(1.0 - np.asarray(picture)) if mode == "1" else image
    found = difference(read(picture, f"a.{end}"), image)
    assert found.mean() < 5 if end in ("jpg", "webp", "avif") else found.max() <= 1


def test_the_ink_may_have_any_colour_and_no_paper(written):
    picture, image = written
    cover = ImageOps.invert(picture)
    # The fourth ink is as bright as its paper.
    for colours in "black white", "white black", "yellow white", "#b42828 #286d28", "navy #aaccff":
        ink, paper = colours.split()
        coloured = Image.new("RGB", picture.size, paper)
        coloured.paste(ink, (0, 0), cover)
        assert difference(read(coloured), image).max() <= 2
        transparent = Image.new("RGBA", picture.size, ink)
        transparent.putalpha(cover)
        assert (read(transparent) == image).all()
        coloured.putalpha(255)
        coloured.paste((0, 0, 0, 0), (0, 0, 280, 20))  # the paper ends there
        assert difference(read(coloured), image).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_rotated_as_its_exif_data_tell(written, orientation):
    picture, image = written
    back = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # Image.Transpose: what undoes it
    stored = picture if back is None else picture.transpose(Image.Transpose(back))
    # Big-endian: a maker (271) that is a fraction, which Pillow cannot write, and the orientation.
    tags = struct.pack(">HHLL", 271, 5, 1, 38) + struct.pack(">HHLHH", 274, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + tags + bytes(4) + struct.pack(">LL", 72, 1)
    assert (read(stored, exif=exif) == image).all()
    tiff = Image.Exif()
    tiff[274] = orientation
    assert (read(stored, "a.tif", exif=tiff) == image).all()


def test_the_first_picture_of_an_animation_counts(written):
    picture, image = written
    blank = Image.new("L", picture.size, 255)
    for name in ("a.gif", "a.tif", "a.png"):
        assert (read(picture, name, save_all=True, append_images=[blank]) == image).all()


def on_a_table(image, index):
    """A JPEG file, bytes, of a digit on dusty ruled paper in uneven light, and the table's edge."""
    generator = np.random.default_rng(index)
    page = np.full((600, 450, 3), (235, 230, 220), np.uint8)
    page[25::40] = page[26::40] = 180, 195, 220
    page[:, :20] = 80, 60, 40
    for x, y in generator.integers(30, 440, (5, 2)):
        page[y : y + 2, x : x + 2] = 60
    page = Image.fromarray(page)
    page.paste((30, 30, 90), (175, 225), Image.fromarray(image).resize((150, 150)))
    light = 1 - 0.4 * np.linspace(0, 1, 600)[:, None, None] * np.linspace(0, 1, 450)[:, None]
    page = np.asarray(page.filter(ImageFilter.GaussianBlur(1))) * light
    page += 5 * generator.standard_normal(page.shape, np.float32)
    Image.fromarray(page.clip(0, 255).astype(np.uint8)).save("a.jpg", quality=75)
    return Path("a.jpg").read_bytes()


@pytest.mark.parametrize("make", [on_paper, on_a_table])
def test_digits_on_paper_of_all_kinds_are_read(digits, reader, make):
    def count_right(images):
        logits = reader(data.to_float(torch.from_numpy(np.stack(images))))
        return (logits.argmax(1).numpy() == digits[1][:40]).sum()

    images = digits[0][:40]
    settings = {"model": reader, "threshold": recipes.THRESHOLD}
    seen = [read_picture(make, image, index, **settings) for index, image in enumerate(images)]
    assert count_right(images) >= 36 and count_right(seen) >= count_right(images) - 2


def test_a_large_picture_is_read_without_a_warning(written, recwarn):
    picture, image = written
    paper = Image.new("L", (9800, 9800), 255)  # 96 million pixels; Pillow warns above 89
    paper.paste(picture.resize((5600, 5600)), (4000, 100))
    assert difference(read(paper, "a.jpg"), image).mean() < 5 and not recwarn.list
    with pytest.raises(ValueError, match="9800 x 9800"):
        read(paper, compress_level=1)
    paper = paper.reduce(2).convert("1").resize((5900, 5900))
    assert difference(read(paper, compress_level=1), image).mean() < 5


def text(content, size, shape=(1200, 1600)):
    page = Image.new("L", shape, "white")
    ImageDraw.Draw(page).multiline_text((60, 60), content, "black", ImageFont.load_default(size))
    return page


def noise(level, shape=(300, 400)):
    pixels = np.random.default_rng(0).normal(200, level, shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


LINE = "The quick brown fox jumps over the lazy dog and over 12 more\n"
TEXTS = [text(LINE * (900 // size), size) for size in (12, 16, 24, 48, 90)] + [text("____", 90)]
BLANK = [
    *(Image.new("L", (500, 400), "white"), Image.new("L", (1, 1)), Image.new("1", (30, 1), 1)),
    *(Image.new(mode, (50, 50), (9, 9, 9, 0)) for mode in ("CMYK", "RGBA")),
    *(noise(2), noise(20), noise(20, (30, 40)), Image.linear_gradient("L"), text(".", 20)),
]


def unsure(images):
    """The probabilities of a judge to which no image is a digit."""
    return np.full((len(images), 10), 0.1)


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_pictures_without_a_digit_and_texts_are_refused(name):
    for picture in BLANK + TEXTS:
        if (picture.mode, name) != ("RGBA", "a.jpg"):
            picture.save(name)
            try:
                evidence = scan.read(name, judge=unsure).evidence
                assert picture not in BLANK and evidence <= 0
            except cli.InputError as error:
                assert str(error).startswith("nothing" if picture in BLANK else "too much")


def test_a_page_of_letters_and_one_of_specks_take_little_time_and_memory():
    letters = text("I l I l I l I l I l I l I l I l I l I l\n" * 24, 24)
    specks = np.full((512, 512), 255, np.uint8)
    specks[::4, ::4] = 0
    for picture in (letters, Image.fromarray(specks)):
        picture.save("a.png")
        tracemalloc.start()
        start = time.monotonic()
        try:
            assert scan.read("a.png", judge=unsure).evidence <= 0
        except cli.InputError as error:
            assert str(error).startswith(("too much", "nothing"))
        assert time.monotonic() - start < 5 and tracemalloc.get_traced_memory()[1] < 200e6
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_digits_beside_and_below_each_other_are_told_apart(reader, name):
    judge = functools.partial(predict.judge, reader)
    for words in ("42", "7 1", "11", "2026", "3\n5", "12\n345"):
        text(words, 200, (700, 600)).save(name)
        found = [
            len(line) for line in scan.read(name, judge=judge, threshold=recipes.THRESHOLD).lines
        ]
        assert found == [len(line.replace(" ", "")) for line in words.split("\n")]


def ask(run, *flags):
    """The predictions in predict.py's JSON, which are also those of its table."""
    code, out, err = run(predict.main, *flags, "--json")
    assert (code, err) == (0, "")
    head, *table, summary = out.split("\n\n")[1].splitlines()
    assert head.split() == "prediction probability runner-up probability picture".split()
    summary = json.loads(summary)
    assert summary["failures"] == [] and summary["class_names"] == data.DIGITS
    for one, line in zip(summary["predictions"], table, strict=True):
        first, second = (f"{one[key]:.2%}" for key in ("probability", "runner_up_probability"))
        shown = [one["prediction"], first, one["runner_up"], second, one["path"]]
        assert line.split(maxsplit=4) == shown
    return summary["predictions"]


def save_reader(reader):
    save_network(reader, threshold=recipes.THRESHOLD)


def test_rows_of_two_to_ten_digits_are_read(run, digits, reader):
    save_reader(reader)
    words, placed = [], 0
    for index in range(20):
        picture, chosen = row(digits[0], index)
        picture.save(f"{index}.png")
        words.append("".join(map(str, digits[1][chosen])))
    predictions = ask(run, *(f"{n}.png" for n in range(20)), "--save-input", "seen")
    for found, word in zip(predictions, words, strict=True):
        answer = found["prediction"]
        placed += in_place(word, answer)
        probabilities = np.array(found["probabilities"]).reshape(-1, 10)
        assert found["probability"] == pytest.approx(probabilities.max(1).prod())
        assert found["runner_up_probability"] <= found["probability"]
        assert sum(a != b for a, b in zip(answer, found["runner_up"], strict=True)) == 1
    assert placed > 0.85 * sum(map(len, words))  # by a network that was trained for seconds
    with Image.open("seen/01_0_28x28.png") as seen:
        assert seen.size == (28 * len(predictions[0]["prediction"]), 28)


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_all_kinds_are_read(run, digits, reader, kind):
    save_reader(reader)
    truths = {}
    for index in range(1 if kind == "sheet" else 6):
        file, chosen = page(digits[0], index, kind)
        Path(f"{index}.jpg").write_bytes(file)
        truths[f"{index}.jpg"] = "".join(map(str, digits[1][chosen]))
    _, out, _ = run(predict.main, "--json", *truths)
    answers = json.loads(out.splitlines()[-1])["predictions"]
    read = {one["path"]: one["prediction"].replace(" ", "") for one in answers}
    placed = sum(in_place(truth, read[path]) for path, truth in truths.items())
    # Of drawn digits, by a network that was trained for seconds.
    assert placed >= 0.8 * sum(map(len, truths.values()))


def test_a_broken_digit_is_one_digit_and_a_frame_is_none(reader):
    judge = functools.partial(predict.judge, reader)
    picture = Image.new("L", (200, 200))
    pen = ImageDraw.Draw(picture)
    pen.line([(90, 62), (80, 100), (120, 105), (130, 130), (110, 150), (80, 150)], 255, 12)
    pen.line([(95, 46), (140, 44)], 255, 12)  # the bar of a 5, apart from the rest
    picture.save("a.png")
    five = only(scan.read("a.png", judge=judge))
    assert judge(five[None]).argmax() == 5
    pen.rectangle((20, 20, 180, 180), None, 255, 5)
    picture.save("a.png")
    assert difference(only(scan.read("a.png", judge=judge)), five).max() < 5


def test_faint_specks_on_clean_white_are_no_ink(digits):
    for image in digits[0][:8]:
        clean = Image.new("L", (300, 300), "white")
        clean.paste("black", (50, 50), Image.fromarray(image).resize((200, 200)))
        near, dirty = np.asarray(clean.filter(ImageFilter.MinFilter(15))), np.array(clean)
        specks = np.zeros((300, 300), bool)
        specks[::20, ::20] = specks[1::20, ::20] = True
        dirty[specks & (near == 255)] = 235
        assert (dirty == 235).sum() > 50
        assert (read(Image.fromarray(dirty)) == read(clean)).all()


@pytest.mark.parametrize("size", [16, 28, 64])
def test_a_digit_may_fill_the_picture(digits, size):
    alike = 0
    for image in digits[0][:20]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        cut = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        cut = cut.resize((size, size), Image.Resampling.BILINEAR)
        light, dark = (read_surely(picture) for picture in (cut, ImageOps.invert(cut)))
        assert max(light.any(1).sum(), light.any(0).sum()) == 20
        alike += (light == dark).all()
    assert alike >= 18  # the ink may be most of such a picture


def test_the_frame_of_images_is_measured(digits):
    assert frame.measure(torch.from_numpy(digits[0])) == frame.MNIST == (20, "mass")
    assert frame.measure(torch.zeros(5, 28, 28, dtype=torch.uint8)) == frame.MNIST
    few = torch.zeros(6_000, 28, 28, dtype=torch.uint8)
    few[:, :9, :9] = 9  # which come first, and are not like most
    most = torch.from_numpy(digits[0][:300]).repeat(40, 1, 1)
    assert frame.measure(torch.cat([few, most, most])).side == 20
    assert frame.measure(torch.empty(0, 28, 28, dtype=torch.uint8)) == frame.MNIST
    large = torch.zeros(60, 28, 28, dtype=torch.uint8)
    for index, shape in enumerate(np.random.default_rng(0).integers(4, 22, (60, 2))):
        shape[index % 2] = 28
        (height, width), (top, left) = shape, (29 - shape) // 2
        large[index, top : top + height, left : left + width] = 99
        large[index, top : top + height // 2, left : left + width // 2] = 255
    assert frame.measure(large) == (28, "box")
    for image in large[:20].numpy():
        for polarity in (image, 255 - image):
            enlarge(polarity).save("a.png")
            seen = only(scan.read("a.png", frame.Frame(28, "box")))
            assert difference(seen, image).max() <= 1


def test_what_is_no_picture_gets_a_sentence_and_the_others_are_read(run, written, network):
    save_network(network)
    written[0].save("good.png")
    content = Path("good.png").read_bytes()
    header = b"IHDR" + 2 * (31623).to_bytes(4, "big") + content[24:29]  # 10^9 pixels
    bomb = content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
    files = {"cut": content[: len(content) // 2], "bomb": bomb, "text": b"no picture", "empty": b""}
    for name, start in files.items():
        Path(name).write_bytes(start)
    Image.new("L", (99, 99)).save("blank.png")
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save("nan.tif")
    Path("folder").mkdir()
    bad = [*files, "blank.png", "nan.tif", "missing.png", "folder", "x" * 300]
    code, out, err = run(predict.main, *bad, "good.png", "--json")
    assert code == 2
    for line, name in zip(err.splitlines(), bad, strict=True):
        assert line.startswith(f"predict.py: {name}: ") and len(line) < 200 + len(name)
    summary = json.loads(out.splitlines()[-1])
    assert [one["path"] for one in summary["predictions"]] == ["good.png"]
    assert [f"predict.py: {reason}" for reason in summary["failures"]] == err.splitlines()


def test_a_folder_is_read_and_a_spreadsheet_opens_the_answers(run, written, network):
    save_network(network, class_names=[f'=é, "{number}"' for number in range(10)])
    folder = Path("my, pictures")
    (folder / "below").mkdir(parents=True)
    (folder / "folder.png").mkdir()
    for name in "b.JPG", "a.png", "notes.txt", "._a.png", "below/c.png":
        written[0].save(folder / name, "png")
    (folder / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name in "=2.png", "\udcff.gif":  # as Python has names that are not UTF-8
        written[0].save(name)
    paths = "=2.png", "\udcff.gif", folder
    for _ in range(2):  # a table takes the place of an earlier one
        code, out, err = run(predict.main, *paths, "--output", "answers.csv", "--json")
        assert code == 2 and err.startswith(f"predict.py: {folder}/c.heic: HEIC ")
    found = json.loads(out.splitlines()[-1])["predictions"]
    read = ["=2.png", "\udcff.gif", f"{folder}/a.png", f"{folder}/b.JPG"]
    assert [one["path"] for one in found] == read

    content = Path("answers.csv").read_bytes()
    assert content.startswith("\ufeffpath,".encode()) and content.endswith(b"\r\n")
    *table, failure = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert failure["path"] == f"{folder}/c.heic" and failure["failure"].startswith("HEIC ")
    assert [line["path"] for line in table] == ["'=2.png", "\\udcff.gif", *read[2:]]
    for line, one in zip(table, found, strict=True):
        for key in "prediction", "runner_up":
            assert line[key] == f"'{one[key]}" and one[key].startswith("=é, ")
        for key in "probability", "runner_up_probability":
            assert float(line[key]) == one[key]


def test_a_table_replaces_no_other_file(run, written, network):
    save_network(network)
    written[0].save("a.png")
    before = Path("a.png").read_bytes()
    for name in "a.png", "checkpoint.pt/a.csv", "":
        code, out, err = run(predict.main, "a.png", "--output", name)
        assert (code, out) == (2, "") and (name or "--output") in err
    assert Path("a.png").read_bytes() == before


@pytest.mark.parametrize("step", ["decode", "to_grey", "fit"])
def test_an_error_of_ours_is_not_taken_for_one_of_the_picture(written, monkeypatch, step):
    monkeypatch.setattr(scan, step, lambda: None)  # that is called with arguments
    with pytest.raises(TypeError):
        read(written[0])


def test_a_format_that_cannot_be_read_is_named(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    for start, name in (
        *((b"\0\0\0\x18ftypheic", "HEIC"), (b"\0\0\0\nftypheix", "HEIC")),  # with a line feed
        *((b"\0\0\0\x1cftypmif1", "HEIC"), (b"\0\0\0 ftypavif", "AVIF"), (b"%PDF-1.7", "PDF")),
    ):
        Path("photo").write_bytes(start + bytes(99))
        with pytest.raises(ValueError, match=f"{name}.*JPEG"):
            scan.read("photo")


@pytest.mark.parametrize("moments", [0, 2])
def test_predict_prints_the_networks_answers_and_saves_what_it_was_asked(
    run, digits, network, moments
):
    model = MLP(moments)
    model.load_state_dict(network.state_dict())
    save_network(model)
    names = [f"my digit {index}.png" for index in range(5)]
    leaning = robustness.distorted(torch.from_numpy(digits[0]), "slant", 20).numpy()
    sure_of = predict.judge(model, leaning).max(1).argsort()[-5:]  # so that none is cut in two
    for image, name in zip(leaning[sure_of], names, strict=True):
        Image.fromarray(image).save(name)
    predictions = ask(run, *names, "--save-input", "seen/here")
    assert [one["path"] for one in predictions] == names
    images = data.to_float(
        torch.from_numpy(np.stack([only(scan.read(name, judge=sure)) for name in names]))
    )
    turned = [rotate(images, degrees, InterpolationMode.BILINEAR) for degrees in TURNS]
    expected = torch.stack([model(each).double().softmax(1).detach() for each in turned]).mean(0)
    for one, probabilities in zip(predictions, expected, strict=True):
        np.testing.assert_allclose(one["probabilities"], probabilities, atol=1e-5)
        first, second = probabilities.argsort(descending=True)[:2].tolist()
        assert (one["prediction"], one["runner_up"]) == (str(first), str(second))
        assert one["probability"] == one["probabilities"][first]
        assert one["runner_up_probability"] == one["probabilities"][second]
    saved = sorted(Path("seen/here").iterdir())
    assert [path.name for path in saved] == [f"0{n + 1}_my digit {n}_28x28.png" for n in range(5)]
    seen = data.to_float(torch.from_numpy(np.stack([np.asarray(Image.open(p)) for p in saved])))
    assert torch.equal(seen, images)
    again = ask(run, *saved)  # The moments are taken out once.
    for field in "prediction", "probability":
        assert [one[field] for one in again] == [one[field] for one in predictions]


def test_a_digit_that_is_not_probable_is_none(run, written, network):
    written[0].save("a.png")
    save_network(network)
    (sure,) = ask(run, "a.png")
    for threshold, refused in (0, False), (sure["probability"] - 0.01, False), (1, True):
        save_network(network, threshold=threshold)
        code, out, err = run(predict.main, "a.png", "--output", "answers.csv", "--json")
        (found,) = json.loads(out.splitlines()[-1])["predictions"]
        assert (code, err, found["probabilities"]) == (0, "", sure["probabilities"])
        assert refused == ("with a probability of 100%" in out)
        if not refused:
            assert found == sure
            continue
        assert (found["prediction"], found["probability"]) == ("no digit", None)
        assert found["runner_up"] == sure["prediction"]
        assert found["runner_up_probability"] == sure["probability"]
        assert ",no digit,," in Path("answers.csv").read_text("utf-8-sig")


def test_what_a_network_is_of_and_for_and_what_judged_it_is_told(run, written, network):
    written[0].save("a.png")
    others = ["T-shirt/top", *(f"class {n}" for n in range(1, 10))]
    for names, settings, advised, judges in (
        (data.DIGITS, {"drawn": 0}, True, "test"),
        (data.DIGITS, {"drawn": 9, "validation": 5}, False, "validation"),
        (others, {"drawn": 0}, False, "test"),
    ):
        save_network(network, class_names=names, settings=FACTS["settings"] | settings)
        (code, read, _), (_, drawn, _) = run(predict.main, "a.png"), run(draw.main)
        for printed in (read, drawn):
            assert advised == ("make train RECIPE=everyday" in printed.split("\n\n")[0])
        assert code == 0 and read.splitlines()[-1].startswith(tuple(f"{n}  " for n in names))
        assert f"of its {judges} images" in Path("draw.html").read_text()


def test_without_a_checkpoint_a_picture_or_a_folder_to_write_to(run, network):
    for flags, named in (
        *((["a.png"], "checkpoint.pt"), ([], "IMAGE")),
        (["a.png", "--save-input", "checkpoint.pt/folder"], "checkpoint.pt/folder"),
    ):
        code, out, err = run(predict.main, *flags)
        assert (code, out) == (2, "") and named in err
        save_network(network)
