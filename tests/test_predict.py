"""From pictures of all kinds to the image that the network reads, and to its answer."""

import json
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_network
from paper import on_paper, only, read_picture, row
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps, features

import data
import predict
from digits import frame, scan, synthetic, traits
from digits.distort import affine, measure_slant, warp
from model import MLP


@pytest.fixture(scope="module")
def digits():
    """Images uint8 [200, 28, 28] as `fit` makes them, and labels."""
    images, labels = synthetic.generate(200, seed=3)
    return np.stack([scan.fit(image) for image in images.numpy() / 255]), labels.numpy()


@pytest.fixture
def written(digits):
    """A digit on white paper, 280 x 280, and its image."""
    large = Image.fromarray(digits[0][0]).resize((280, 280), Image.Resampling.NEAREST)
    return ImageOps.invert(large), scan.fit(np.asarray(large) / 255)


def read(picture, name="picture.png", **settings):
    """What scan.read() makes of a PIL image that is written to a file."""
    picture.save(name, **settings)
    return only(scan.read(name))


# fit


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
    image = scan.fit(ink)
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert (len(rows), len(columns)) == (7, 20)
    dot_and_line = np.zeros((20, 20))
    dot_and_line[0, 0], dot_and_line[19, 19] = 1, 1e-3  # nearly all mass in a corner
    assert np.argwhere(scan.fit(dot_and_line + 1e-9 * (dot_and_line == 0))).min() == 8


def test_an_image_as_mnist_has_them_comes_out_as_it_went_in(digits):
    for image in digits[0]:
        assert (read(Image.fromarray(image)) == image).all()
    thick = traits.measure(torch.from_numpy(digits[0]))["thickness"].numpy() > scan.THIN
    for image in digits[0][thick][:20]:
        large = Image.fromarray(image).resize((280, 280), Image.Resampling.NEAREST)
        assert (read(large) == image).all()


def test_thin_strokes_of_a_large_digit_are_thickened_by_half_of_what_they_lack(digits):
    def thickness(image):
        return traits.measure(torch.from_numpy(image)[None])["thickness"].item()

    for image in digits[0]:
        large = read(Image.fromarray(image).resize((280, 280), Image.Resampling.NEAREST))
        lacking = max(0, scan.THIN - thickness(image))
        assert thickness(large) - thickness(image) == pytest.approx(lacking / 2, abs=0.25)


# Pictures of all kinds


@pytest.mark.parametrize(
    "name, mode",
    [
        *(("a.png", mode) for mode in ("L", "LA", "P", "RGB", "RGBA", "I;16")),
        *(("a.tif", mode) for mode in ("L", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F")),
        *(("a.bmp", mode) for mode in ("L", "P", "RGB")),
        *(("a.gif", mode) for mode in ("L", "P")),
    ],
)
def test_formats_and_modes_say_the_same(written, name, mode):
    picture, image = written
    if mode in ("I;16", "I"):
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257).convert(mode)
    assert np.abs(read(picture.convert(mode), name) - image.astype(int)).max() <= 1


def test_lossy_formats_and_black_and_white_say_nearly_the_same(written):
    picture, image = written
    for name, mode in (("a.jpg", "L"), ("a.jpg", "RGB"), ("a.jpg", "CMYK"), ("a.webp", "RGB")):
        assert np.abs(read(picture.convert(mode), name) - image.astype(int)).mean() < 5
    bilevel = picture.convert("1", dither=Image.Dither.NONE)
    assert (read(bilevel, "a.png") == scan.fit((np.asarray(picture) < 128).astype(float))).all()


def test_the_ink_may_have_any_colour_and_no_paper(written):
    picture, image = written
    cover = Image.fromarray(255 - np.asarray(picture))
    for ink, paper in (
        ("black", "white"),
        ("white", "black"),
        ("yellow", "white"),
        ("#b42828", "#286d28"),  # as bright as each other
        ("navy", "#aaccff"),
    ):
        coloured = Image.new("RGB", picture.size, paper)
        coloured.paste(ink, (0, 0), cover)
        assert np.abs(read(coloured) - image.astype(int)).max() <= 2
        transparent = Image.new("RGBA", picture.size, ink)
        transparent.putalpha(cover)
        assert (read(transparent) == image).all()
        coloured.putalpha(255)
        coloured.paste((0, 0, 0, 0), (0, 0, 280, 20))  # the paper ends there
        assert np.abs(read(coloured) - image.astype(int)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_tell(written, orientation):
    picture, image = written
    back = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # Image.Transpose: what undoes it
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = picture if back is None else picture.transpose(Image.Transpose(back))
    assert (read(turned, exif=exif) == image).all()
    assert (read(turned, "a.tif", exif=exif) == image).all()


def test_the_first_picture_of_an_animation_counts(written):
    picture, image = written
    blank = Image.new("L", picture.size, 255)
    for name in ("a.gif", "a.tif", "a.png"):
        assert (read(picture, name, save_all=True, append_images=[blank]) == image).all()


def count_right(network, images, labels):
    logits = network(data.to_float(torch.from_numpy(np.stack(images))))
    return (logits.argmax(1).numpy() == labels).sum()


def test_uneven_light_dust_lines_and_the_edge_of_a_table_do_no_harm(digits, network):
    generator = np.random.default_rng(1)
    images, labels, seen = digits[0][:40], digits[1][:40], []
    for image in images:
        page = Image.new("RGB", (900, 1200), (235, 230, 220))
        pen = ImageDraw.Draw(page)
        for y in range(50, 1200, 80):
            pen.line((0, y, 900, y), (180, 195, 220), 3)
        pen.rectangle((0, 0, 40, 1200), (80, 60, 40))
        for x, y in generator.integers(60, 880, (5, 2)).tolist():
            pen.rectangle((x, y, x + 3, y + 3), (60, 60, 60))
        cover = Image.fromarray(image).resize((300, 300), Image.Resampling.BICUBIC)
        page.paste((30, 30, 90), (350, 450), cover)
        light = 1 - 0.4 * np.linspace(0, 1, 900)[:, None] * np.linspace(0, 1, 1200)[:, None, None]
        page = np.asarray(page.filter(ImageFilter.GaussianBlur(2))) * light
        page += 5 * generator.standard_normal(page.shape)
        page = Image.fromarray(page.clip(0, 255).astype(np.uint8))
        seen.append(read(page, "a.jpg", quality=75))
    right = count_right(network, images, labels)
    assert right >= 36 and count_right(network, seen, labels) >= right - 2


def test_digits_on_paper_of_all_kinds_are_read(digits, network):
    images, labels = digits[0][:100], digits[1][:100]
    seen = [read_picture(on_paper, image, index) for index, image in enumerate(images)]
    right = count_right(network, images, labels)
    assert right >= 90 and count_right(network, seen, labels) >= right - 3


def test_a_large_picture_is_read_without_a_warning(written, recwarn):
    picture, image = written
    paper = Image.new("L", (9800, 9800), 255)  # 96 million pixels; Pillow warns above 89
    paper.paste(picture.resize((5600, 5600)), (4000, 100))
    assert np.abs(read(paper, "a.jpg") - image.astype(int)).mean() < 5 and not recwarn.list
    with pytest.raises(ValueError, match="9800 x 9800 pixels are too many, make it smaller"):
        read(paper)
    paper.resize((5900, 5900)).save("large.png")
    assert np.abs(only(scan.read("large.png")) - image.astype(int)).mean() < 5


# What cannot be read


def text(content, size, shape=(1200, 1600)):
    page = Image.new("L", shape, "white")
    ImageDraw.Draw(page).multiline_text((60, 60), content, "black", ImageFont.load_default(size))
    return page


def noise(level, shape=(300, 400)):
    return Image.fromarray(
        np.random.default_rng(0).normal(200, level, shape).clip(0, 255).astype(np.uint8)
    )


NOTHING = "nothing seems to be written on it"
LINE = "The quick brown fox jumps over the lazy dog and over 12 more\n"


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (500, 400), "white"),
        Image.new("L", (1, 1)),
        Image.new("1", (30, 1), 1),
        Image.new("RGBA", (50, 50), (9, 9, 9, 0)),
        Image.new("CMYK", (50, 50), (9, 9, 9, 0)),
        Image.linear_gradient("L"),
        noise(2),
        noise(20),
        noise(20, (30, 40)),
        text(".", 20),
    ],
)
def test_pictures_without_a_digit_are_refused(picture):
    for name in ("a.tif", "a.jpg"):
        if name == "a.jpg" and picture.mode == "RGBA":
            continue
        with pytest.raises(ValueError) as refused:
            read(picture, name)
        assert str(refused.value) == NOTHING


@pytest.mark.parametrize("size", [12, 16, 24, 48, 90])
def test_a_text_is_refused(size):
    for name in ("a.tif", "a.jpg"):
        with pytest.raises(ValueError, match="cannot be told apart|too much is written on it"):
            read(text(LINE * (900 // size), size), name)


def test_a_page_of_letters_and_one_of_specks_take_little_time_and_memory():
    letters = text("I l I l I l I l I l I l I l I l I l I l\n" * 24, 24)
    specks = np.full((512, 512), 255, np.uint8)
    specks[::4, ::4] = 0
    for picture in (letters, Image.fromarray(specks)):
        picture.save("a.png")
        tracemalloc.start()
        start = time.monotonic()
        with pytest.raises(ValueError, match="too much|told apart|nothing"):
            scan.read("a.png")
        assert time.monotonic() - start < 5 and tracemalloc.get_traced_memory()[1] < 200e6
        tracemalloc.stop()


# Several digits


def count(lines):
    return [len(line) for line in lines]


@pytest.mark.parametrize(
    "words, found",
    [("42", [2]), ("7 1", [2]), ("11", [2]), ("2026", [4]), ("3\n5", [1, 1]), ("12\n345", [2, 3])],
)
def test_digits_beside_and_below_each_other_are_told_apart(words, found):
    for name in ("a.tif", "a.jpg"):
        text(words, 200, (700, 600)).save(name)
        assert count(scan.read(name)) == found


def test_rows_of_two_to_ten_digits_are_read(run, digits, network):
    save_network(network)
    names, words = [], []
    for index in range(40):
        picture, chosen = row(digits[0], index)
        names.append(f"{index}.png")
        words.append("".join(map(str, digits[1][chosen])))
        picture.save(names[-1])
    code, out, err = run(predict.main, *names, "--json", "--save-input", "seen")
    assert (code, err) == (0, "")
    predictions = json.loads(out.splitlines()[-1])["predictions"]
    pairs = [(found["prediction"], word) for found, word in zip(predictions, words, strict=True)]
    assert [len(found) for found, _ in pairs] == [len(word) for _, word in pairs]
    right = np.mean([a == b for found, word in pairs for a, b in zip(found, word, strict=True)])
    assert right > 0.85  # the network is one that was trained for seconds
    for found, line in zip(predictions, out.splitlines()[3:-1], strict=True):
        probabilities = np.array(found["probabilities"]).reshape(-1, 10)
        assert found["probability"] == pytest.approx(probabilities.max(1).prod())
        assert found["runner_up_probability"] <= found["probability"]
        answers = zip(found["prediction"], found["runner_up"], strict=True)
        assert sum(a != b for a, b in answers) == 1
        assert line.split()[0] == found["prediction"]
    with Image.open("seen/01_0_28x28.png") as seen:
        assert seen.size == (28 * len(words[0]), 28)


def test_a_broken_digit_is_one_digit_and_a_frame_is_none():
    picture = Image.new("L", (200, 200))
    pen = ImageDraw.Draw(picture)
    pen.line([(90, 62), (80, 100), (120, 105), (130, 130), (110, 150), (80, 150)], 255, 12)
    pen.line([(95, 46), (140, 44)], 255, 12)  # the bar of a 5, apart from the rest
    ((five,),) = scan.find_digits(np.asarray(picture) / 255, True)
    assert five[:55].sum() > 400 * 0.9  # the bar is in it
    pen.rectangle((20, 20, 180, 180), None, 255, 5)
    ((found,),) = scan.find_digits(np.asarray(picture) / 255, True)
    assert found[:30].sum() == found[:, :30].sum() == 0
    assert found[55:].sum() == five[55:].sum()


def test_faint_specks_on_clean_white_are_no_ink(digits):
    generator = np.random.default_rng(0)
    for image in digits[0][:20]:
        large = np.asarray(Image.fromarray(image).resize((200, 200), Image.Resampling.BICUBIC))
        clean = np.full((300, 300), 255, np.uint8)
        clean[50:250, 50:250] -= large
        dirty = clean.copy()
        for y, x in generator.integers(0, 298, (60, 2)):
            if clean[max(0, y - 6) : y + 8, max(0, x - 6) : x + 8].min() == 255:
                dirty[y : y + 2, x : x + 2] = 235
        assert (dirty < clean).sum() > 50
        assert (read(Image.fromarray(dirty)) == read(Image.fromarray(clean))).all()


@pytest.mark.parametrize("size", [16, 28, 64])
def test_a_digit_may_fill_the_picture(digits, size):
    for image in digits[0][:20]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        cut = Image.fromarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        cut = cut.resize((size, size), Image.Resampling.BILINEAR)
        light, dark = (read(picture) for picture in (cut, ImageOps.invert(cut)))
        assert (light == dark).all()
        assert max(light.any(1).sum(), light.any(0).sum()) == 20


# Other things


def test_the_frame_of_images_is_measured(digits):
    images = torch.from_numpy(digits[0])
    assert frame.measure(images) == frame.MNIST == (20, "mass")
    large = torch.zeros(60, 28, 28, dtype=torch.uint8)
    for index, (height, width) in enumerate(np.random.default_rng(0).integers(4, 29, (60, 2))):
        height, width = (28, width) if index % 2 else (height, 28)
        top, left = (29 - height) // 2, (29 - width) // 2
        large[index, top : top + height, left : left + width] = 99
        large[index, top : top + height // 2, left : left + width // 2] = 255
    assert frame.measure(large) == (28, "box")
    assert frame.measure(torch.zeros(5, 28, 28, dtype=torch.uint8)) == frame.MNIST
    for image in large.numpy():
        if (image == 0).mean() < 0.3 or image.max() < 255:
            continue  # more of it than of the paper
        for polarity in (image, 255 - image):
            Image.fromarray(polarity).resize((280, 280), Image.Resampling.NEAREST).save("a.png")
            seen = only(scan.read("a.png", frame.Frame(28, "box"), digits=False))
            assert np.abs(seen.astype(int) - image).max() <= 1


def chunk(kind, content):
    body = kind + content
    return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def test_what_is_no_picture_gets_a_sentence_and_the_others_are_read(run, written, network):
    save_network(network)
    written[0].save("good.png")
    content = Path("good.png").read_bytes()
    Path("cut.png").write_bytes(content[: len(content) // 2])
    side = (31623).to_bytes(4, "big")  # 10^9 pixels
    header = chunk(b"IHDR", side + side + bytes([8, 0, 0, 0, 0]))
    Path("bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    Image.new("L", (99, 99)).save("blank.png")
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save("nan.tif")
    bad = "cut.png bomb.png text.png empty.png blank.png nan.tif missing.png .".split()
    code, out, err = run(predict.main, *bad, "good.png", "--json")
    assert code == 2
    for line, name in zip(err.splitlines(), bad, strict=True):
        assert line.startswith(f"predict.py: {name}: ") and len(line) < 200
    summary = json.loads(out.splitlines()[-1])
    assert [one["path"] for one in summary["predictions"]] == ["good.png"]
    assert [f"predict.py: {reason}" for reason in summary["failures"]] == err.splitlines()


@pytest.mark.parametrize(
    "start, format",
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x0aftypheix", "HEIC"),  # whose length is a line feed
        (b"\0\0\0\x1cftypmif1", "HEIC"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_a_format_that_cannot_be_read_is_named(start, format):
    Path("photo").write_bytes(start + bytes(99))
    with pytest.raises(ValueError, match=f"{format} cannot be read here, save it as JPEG"):
        scan.read("photo")


def test_avif_is_read_where_pillow_has_it(written, monkeypatch):
    if features.check("avif"):
        images = [read(written[0], f"photo.{end}", quality=100) for end in ("avif", "jpg")]
        assert abs(images[0] - images[1].astype(int)).mean() < 1
    else:
        Path("photo.avif").write_bytes(b"\0\0\0\x20ftypavif")
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(ValueError, match="AVIF cannot be read here, save it as JPEG"):
        scan.read("photo.avif")


# The script


def test_what_is_saved_is_what_the_network_saw(run, digits, network):
    image = digits[0][3]
    leaning = warp(torch.from_numpy(image / 255).float()[None, None], affine(slant=30))
    Image.fromarray((255 * leaning[0, 0]).round().byte().numpy()).save("leaning.png")
    upright = MLP(deslant=True)
    upright.load_state_dict(network.state_dict())
    saved = []
    for model in network, upright:
        save_network(model)
        assert run(predict.main, "leaning.png", "--save-input", "seen")[0] == 0
        saved.append(np.asarray(Image.open("seen/01_leaning_28x28.png")) / 255)
    slants, _ = measure_slant(torch.tensor(np.stack(saved)[:, None]).float())
    assert slants[0] > 0.4 and abs(slants[1]) < 0.03


def test_predict_prints_the_networks_answer_for_each_picture(run, digits, network):
    save_network(network)
    names = []
    for index, image in enumerate(digits[0][:5]):
        names.append(f"my digit {index}.png")
        Image.fromarray(image).save(names[-1])
    code, out, err = run(predict.main, *names, "--json", "--save-input", "seen/here")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[2].split() == "prediction probability runner-up probability picture".split()
    summary = json.loads(lines[-1])
    assert summary["failures"] == [] and summary["class_names"] == list("0123456789")
    logits = network(data.to_float(torch.from_numpy(digits[0][:5])))
    for index, (one, line) in enumerate(zip(summary["predictions"], lines[3:-1], strict=True)):
        probabilities = logits[index].double().softmax(0)
        np.testing.assert_allclose(one["probabilities"], probabilities.detach(), atol=1e-6)
        order = probabilities.argsort(descending=True).tolist()
        assert (one["prediction"], one["runner_up"]) == (str(order[0]), str(order[1]))
        assert one["probability"] == one["probabilities"][order[0]]
        assert one["runner_up_probability"] == one["probabilities"][order[1]]
        assert line.split(maxsplit=4) == [
            one["prediction"],
            f"{one['probability']:.2%}",
            one["runner_up"],
            f"{one['runner_up_probability']:.2%}",
            names[index],
        ]
        saved = Path("seen/here") / f"{index + 1:02}_my digit {index}_28x28.png"
        with Image.open(saved) as picture:
            assert (np.asarray(picture) == digits[0][index]).all()
    assert len(list(Path("seen/here").iterdir())) == 5


def test_other_classes_have_their_names(run, digits, network):
    names = ["T-shirt/top", *(f"class {n}" for n in range(1, 9)), "Ankle boot"]
    save_network(network, class_names=names)
    Image.fromarray(digits[0][list(digits[1]).index(0)]).save("a.png")
    _, out, _ = run(predict.main, "a.png")
    assert out.splitlines()[3].startswith("T-shirt/top  ")


def test_without_a_checkpoint_a_picture_or_a_folder_to_write_to(run, network):
    assert run(predict.main, "a.png") == (
        2,
        "",
        "predict.py: checkpoint checkpoint.pt: there is none, train first (make train)\n",
    )
    code, _, err = run(predict.main)
    assert code == 2 and "the following arguments are required: IMAGE" in err
    save_network(network)
    code, _, err = run(predict.main, "a.png", "--save-input", "checkpoint.pt/folder")
    assert code == 2 and "cannot be written" in err
