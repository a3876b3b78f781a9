"""The page of draw.py, in Chromium: its pixels, its arithmetic, and drawing on it.

Where there is no browser, all of it is skipped but the first tests:

    apt install chromium chromium-driver
"""

import base64
import functools
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FACTS, save_network
from PIL import Image

import data
import draw
import predict
from digits import candidates, distort, nothing, paper, scan, synthetic
from digits.frame import Frame
from model import MLP

PAGE = Path("draw.html")
WAYS = [line for line in synthetic.WAYS.split("\n") if line and line[0] != "#"]
HOSTILE = [
    "</script><script>document.title = 'run'</script>",
    "&amp;",
    "'\"`${1}\\",
    "\u2028é",
    "<b>",
]


def test_the_page_is_one_small_file_that_asks_for_nothing(run, network):
    save_network(network)
    code, out, err = run(draw.main, "--json")
    assert (code, err) == (0, "")
    page = PAGE.read_text()
    assert json.loads(out.splitlines()[-1]) == {"output": "draw.html", "bytes": len(page.encode())}
    assert f"open it in a browser: {PAGE.resolve().as_uri()}\n" in out
    assert len(page.encode()) < 10**6
    assert not re.search(r"https?:|//\w+\.|\bsrc=|\bhref=|@import|fetch\(|XMLHttp|import\(", page)
    assert "default-src 'none'" in page  # so that the browser sees to it as well
    assert re.search(r"<noscript>.*JavaScript.*</noscript>", page)


def test_without_a_checkpoint_and_where_it_cannot_be_written_nothing_is_lost(run, network):
    PAGE.write_text("mine")
    code, _, err = run(draw.main)
    assert code == 2 and "checkpoint.pt" in err
    save_network(network)
    for output in ("checkpoint.pt/page.html", "."):
        code, _, err = run(draw.main, "--output", output)
        assert code == 2 and output in err and err.count("\n") == 1
    assert PAGE.read_text() == "mine"


# In the browser.


browser = pytest.mark.browser


@pytest.fixture
def show(chromium, run):
    """show(model, **facts): the browser with the page of a network with such a checkpoint."""

    def show(model, **facts):
        save_network(model, **facts)
        assert run(draw.main)[0] == 0
        chromium.get(PAGE.resolve().as_uri())
        return chromium

    chromium.get_log("browser")
    yield show
    assert chromium.get_log("browser") == []  # neither errors nor refused requests


@pytest.fixture
def page(show, network):
    """The browser with the page of a network that reads drawn digits."""
    return show(network)


def stroke(page, points, kind="mouse", lift=True):
    """Draw with a pointer of a kind through points [x, y] in the square in the canvas's middle."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    canvas = page.find_element("id", "drawing").rect
    side = canvas["height"]
    left = canvas["x"] + (canvas["width"] - side) / 2
    builder = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=0)
    for index, (x, y) in enumerate(points):
        builder.pointer_action.move_to_location(
            round(left + x * side), round(canvas["y"] + y * side)
        )
        if index == 0:
            builder.pointer_action.pointer_down()
    if lift:
        builder.pointer_action.pointer_up()
    builder.perform()


def write(page, way, kind="mouse", right=0.0):
    """Draw a digit in one of the WAYS of synthetic.py, by so much beside the canvas's middle."""
    for control in way.split(":")[1].split("/"):
        control = torch.tensor([[float(v) for v in point.split(",")] for point in control.split()])
        curve = synthetic.spline(len(control)) @ control
        corner = torch.tensor([0.18 + right, 0.18])
        stroke(page, (corner + 0.032 * curve[::3]).tolist(), kind)


def text(page, name):
    return page.find_element("id", name).get_attribute("textContent")


def percentages(page):
    spans = page.find_elements("css selector", "#bars li > :last-child")
    return [span.text for span in spans]


def picture(page, name):
    """The pixels uint8 [H, W, 4] of a canvas of the page, as a PIL image."""
    url = page.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def press(page, *keys):
    page.switch_to.active_element.send_keys(*keys)


def image_of(page):
    """What the network sees, uint8 [28, 28 N], as the page shows it."""
    return np.asarray(picture(page, "image"))[..., 0]


def see(page, inks):
    """(images uint8 [N, 28, 28], probabilities [N, 10]) that the page makes of inks [H, W]."""
    found = []
    for start in range(0, len(inks), 100):
        part = inks[start : start + 100]
        found += page.execute_script(SEE, [[ink.ravel().tolist(), *ink.shape] for ink in part])
    images, probabilities = map(np.array, zip(*found, strict=True))
    return images.reshape(-1, 28, 28), probabilities


SEE = """return arguments[0].map(([pixels, height, width]) => {
  const image = fit(pixels, height, width);
  return [image, judge(image)];
})"""


def compare(page, network, inks):
    """Assert that the page makes of inks uint8 [H, W] what scan.py and the network do."""
    images = np.stack([scan.fit(ink / 255) for ink in inks])
    expected = predict.judge(network, images)
    seen, probabilities = see(page, inks)
    assert (seen == images).all()
    assert (probabilities.argmax(1) == expected.argmax(1)).all()
    assert np.abs(probabilities - expected).max() < 0.001


@browser
def test_fed_the_same_pixels_the_page_says_the_same(page, network):
    compare(page, network, list(synthetic.generate(1000, seed=4)[0].numpy()))
    generator, others = np.random.default_rng(0), []
    for image in synthetic.generate(100, seed=5)[0].numpy():
        size = generator.integers(5, 120, 2).tolist()
        ink = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        others.append(np.pad(np.asarray(ink), generator.integers(0, 40, (2, 2))))
    others = [ink for ink in others if ink.any()]
    thin = [scan.fit(ink / 255) != scan.fit(ink / 255, digits=False) for ink in others]
    assert sum(changed.any() for changed in thin) > 20
    compare(page, network, others)


def threshold(value):
    """The settings of a network for which less probable digits are none."""
    return FACTS["settings"] | {"threshold": value}


def rows(count, generator):
    """Yield inks uint8 [H, W] of one to five digits in a row, and of what is no digit among them.

    Their sizes differ; some are broken, faint or in a box.
    """
    drawn = synthetic.generate(300, seed=7)[0].numpy()
    others = nothing.write(300, torch.Generator().manual_seed(7)).numpy()
    for _ in range(count):
        height, parts = int(generator.integers(40, 90)), []
        for _ in range(generator.integers(1, 6)):
            image = generator.choice(others if generator.random() < 0.2 else drawn)
            size = (height * generator.uniform([0.8, 0.6], 1)).astype(int)  # its width and height
            part = np.array(Image.fromarray(image).resize(size.tolist()))
            if generator.random() < 0.2:
                start = generator.integers(0.3 * height, 0.5 * height)
                part[start : start + generator.integers(2, 6)] = 0
            if generator.random() < 0.1:
                part //= 3
            above = int(generator.integers(0, height - len(part) + 1))
            below, beside = height - len(part) - above, generator.integers(0, 12, 2)
            parts.append(np.pad(part, ((above, below), beside)))
        ink = np.pad(np.hstack(parts), 12)
        if generator.random() < 0.3:
            ink[3:6, 3:-3] = ink[-6:-3, 3:-3] = ink[3:-3, 3:6] = ink[3:-3, -6:-3] = 255
        yield (ink * (255 / ink.max())).round().astype(np.uint8)


READ = """return arguments[0].map(([pixels, height, width]) => {
  const reading = read(Float64Array.from(pixels, value => value / 255), height, width);
  return [reading.digits.map(digit => digit.image), reading.none];
})"""


@browser
@pytest.mark.parametrize("least", [0.0, 0.6])
def test_of_a_row_the_page_reads_the_same_digits(show, network, monkeypatch, least):
    page = show(network, settings=threshold(least))
    # The page neither cuts pieces nor looks for lines and rules.
    monkeypatch.setattr(candidates, "cut", lambda piece, pieces, ink: [])
    monkeypatch.setattr(candidates, "arrange", lambda found: [candidates.from_left(found)])
    monkeypatch.setattr(paper, "without_rules", lambda ink: None)
    inks = list(rows(150, np.random.default_rng(1)))
    found = []
    for start in range(0, len(inks), 25):
        part = inks[start : start + 25]
        found += page.execute_script(READ, [[ink.ravel().tolist(), *ink.shape] for ink in part])
    counts, refused = [], 0
    for ink, (seen, none) in zip(inks, found, strict=True):
        Image.fromarray(ink).save("row.png")
        judge = functools.partial(predict.judge, network)
        reading = scan.read("row.png", judge=judge, threshold=least)
        (images,) = reading.lines
        digits = reading.evidence > 0 or (least == 0 and len(images) == 1)
        assert none != digits
        if digits:
            np.testing.assert_array_equal(np.reshape(seen, (-1, 28, 28)), images)
            counts.append(len(seen))
        refused += none
    assert set(counts) >= {1, 2, 3, 4, 5} and (refused > 10) == (least > 0)


@browser
@pytest.mark.parametrize("level", [1, 2])
def test_the_page_takes_moments_out_where_the_network_does(show, network, level):
    upright = MLP(level)
    upright.load_state_dict(network.state_dict())
    page = show(upright)
    stroke(page, [(0.35, 0.8), (0.65, 0.2)])
    seen = torch.from_numpy(image_of(page) / 255).float()
    assert distort.measure_slant(distort.measure_moments(seen[None, None])[1]).abs() < 0.02
    images = data.to_float(synthetic.generate(300, seed=6)[0])
    leaning = distort.warp(images, distort.affine(slant=torch.linspace(-50, 50, 300)))
    leaning = list((255 * leaning).round().byte()[:, 0].numpy())
    compare(page, upright, leaning)
    with torch.inference_mode():
        seen = torch.from_numpy(np.stack([scan.fit(ink / 255) for ink in leaning]))
        as_they_are, put_upright = (net(data.to_float(seen)) for net in (network, upright))
    assert (as_they_are.argmax(1) != put_upright.argmax(1)).sum() > 10


@browser
def test_each_digit_drawn_is_read_and_predict_reads_the_same(page, run):
    shown = []
    # The pen comes last, because from then on the page takes no touch, which may be the palm's.
    kinds = 4 * ["mouse"] + 3 * ["touch"] + 3 * ["pen"]
    for digit, kind in zip("0123456789", kinds, strict=True):
        page.find_element("id", "clear").click()
        write(page, next(way for way in WAYS if way.startswith(digit)), kind)
        assert text(page, "answer") == digit
        picture(page, "drawing").save(f"{digit}.png")
        shown.append((digit, percentages(page), image_of(page)))
    names = [f"{digit}.png" for digit, *_ in shown]
    code, out, err = run(predict.main, *names, "--json", "--save-input", "seen")
    predictions = json.loads(out.splitlines()[-1])["predictions"]
    for one, path, (digit, shares, seen) in zip(
        predictions, sorted(Path("seen").iterdir()), shown, strict=True
    ):
        assert one["prediction"] == digit
        assert [f"{100 * p:.1f}%" for p in one["probabilities"]] == shares
        assert (np.asarray(Image.open(path)) == seen).all()


@browser
def test_of_digits_drawn_in_a_row_it_shows_the_images_and_the_least_sure(page, network):
    for digit, right in zip("427", (-0.6, 0, 0.6), strict=True):
        write(page, next(way for way in WAYS if way.startswith(digit)), right=right)
    assert text(page, "answer") == "427"
    picture(page, "drawing").save("427.png")
    (images,) = scan.read("427.png", judge=functools.partial(predict.judge, network)).lines
    assert (image_of(page) == np.hstack(images)).all()
    probabilities = predict.judge(network, np.stack(images))
    second, first = np.sort(probabilities)[:, -2:].T
    doubtful = (second / first).argmax()
    other = list("427")
    other[doubtful] = str(probabilities[doubtful].argsort()[-2])
    likely = first.prod() * second[doubtful] / first[doubtful]
    assert text(page, "spoken") == f"427, {first.prod():.1%}; then {''.join(other)}, {likely:.1%}"
    assert percentages(page) == [f"{p:.1%}" for p in probabilities[doubtful]]
    place = ("1st", "2nd", "3rd")[doubtful]
    assert text(page, "which") == f"bars: the {place} digit, the least sure"


@browser
@pytest.mark.parametrize("least", [0.0, 1.0])
def test_it_says_no_digit_if_the_network_has_a_threshold(show, network, least):
    page = show(network, settings=threshold(least))
    write(page, WAYS[0])
    for points in [], [(1.2, 0.2), (1.4, 0.8), (1.1, 0.4), (1.4, 0.3), (1.2, 0.8)]:
        if points:
            stroke(page, points)
        assert (text(page, "answer") == "no digit") == (least == 1)
        assert re.match("no digit; then [0-9], " if least else "[0-9]+, ", text(page, "spoken"))
        assert 99 < sum(float(percent[:-1]) for percent in percentages(page)) < 101
        assert least == 0 or image_of(page).shape == (28, 28) and text(page, "which") == ""


@browser
def test_the_bars_follow_the_stroke_and_the_answer_is_announced_at_its_end(page):
    assert text(page, "answer") == "…" and percentages(page) == [""] * 10
    stroke(page, [(0.5, 0.2), (0.5, 0.5), (0.49, 0.8)], lift=False)
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert text(page, "answer") == "1" and text(page, "spoken") == ""
    shown = [float(percent[:-1]) for percent in percentages(page)]
    assert 99 < sum(shown) < 101
    widths = page.execute_script(
        "return [...document.querySelectorAll('li div div')].map(e => parseFloat(e.style.width))"
    )
    np.testing.assert_allclose(widths, shown, atol=0.06)
    stroke(page, [(0.49, 0.8)])
    assert re.fullmatch(r"1, [\d.]+%; then \d, [\d.]+%", text(page, "spoken"))
    assert page.find_element("id", "spoken").get_attribute("role") == "status"


POINTER = """
const [type, x, y, settings] = arguments, drawing = document.getElementById("drawing");
const box = drawing.getBoundingClientRect();
drawing.setPointerCapture = () => {};  // of a pointer that is made up
drawing.dispatchEvent(new PointerEvent(type, {
  clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true, ...settings,
}));
return strokes.length;
"""
PEN, PALM, MOUSE = (
    {"pointerId": number, "pointerType": kind, "button": 0, "buttons": 1}
    for number, kind in enumerate(["pen", "touch", "mouse"], start=1)
)


@browser
def test_a_stroke_ends_when_no_button_is_down_though_no_pointerup_came(page):
    page.execute_script(POINTER, "pointerdown", 0.5, 0.2, MOUSE)
    page.execute_script(POINTER, "pointermove", 0.5, 0.8, MOUSE)
    assert text(page, "spoken") == ""
    page.execute_script(POINTER, "pointermove", 0.9, 0.9, MOUSE | {"buttons": 0})
    assert text(page, "answer") == "1" and text(page, "spoken").startswith("1, ")
    assert page.execute_script("return strokes[0].length") == 2
    assert page.execute_script(POINTER, "pointerdown", 0.2, 0.2, MOUSE) == 2  # and another begins


@browser
def test_a_pen_draws_although_a_palm_rests_on_the_glass(page):
    assert page.execute_script(POINTER, "pointerdown", 0.9, 0.9, PALM) == 1
    assert page.execute_script(POINTER, "pointerdown", 0.5, 0.2, PEN) == 1  # the palm's has gone
    page.execute_script(POINTER, "pointermove", 0.95, 0.95, PALM)
    page.execute_script(POINTER, "pointermove", 0.5, 0.8, PEN)
    page.execute_script(POINTER, "pointerup", 0.5, 0.8, PEN | {"buttons": 0})
    assert text(page, "answer") == "1"
    assert page.execute_script(POINTER, "pointerdown", 0.8, 0.9, PALM | {"pointerId": 9}) == 1


@browser
def test_undo_and_clear_by_button_and_by_key(page):
    from selenium.webdriver.common.keys import Keys

    undo, clear = (page.find_element("id", name) for name in ("undo", "clear"))
    blank = np.asarray(picture(page, "drawing"))
    assert not undo.is_enabled() and not clear.is_enabled()
    for remove in (undo.click, lambda: press(page, Keys.CONTROL, "z")):
        stroke(page, [(0.5, 0.2), (0.5, 0.8)])
        once = np.asarray(picture(page, "drawing"))
        stroke(page, [(0.2, 0.5), (0.8, 0.5)])
        remove()
        assert (np.asarray(picture(page, "drawing")) == once).all()
        remove()
        assert (np.asarray(picture(page, "drawing")) == blank).all()
        remove()  # nothing is left, and nothing happens
    for remove in (clear.click, lambda: press(page, Keys.ESCAPE)):
        stroke(page, [(0.5, 0.2), (0.5, 0.8)])
        stroke(page, [(0.6, 0.6)])  # a dot
        remove()
        assert (np.asarray(picture(page, "drawing")) == blank).all()
        assert text(page, "answer") == "…" and text(page, "spoken") == "blank"
        assert not np.asarray(picture(page, "image"))[..., :3].any()


@browser
def test_other_classes_show_their_names_and_run_nothing(show, network):
    names = [*HOSTILE, "T-shirt/top", "Trouser", "Ankle boot", "class 8", "class 9"]
    page = show(network, class_names=names)
    labels = page.find_elements("css selector", "#bars li > :first-child")
    assert [label.get_attribute("textContent") for label in labels] == names
    assert text(page, "title").startswith("Draw one of these: ")
    assert page.title == "Draw for the 784-128-10 network"
    stroke(page, [(0.5, 0.2), (0.5, 0.8)])
    assert text(page, "answer") == names[1]
    stroke(page, [(1.2, 0.2), (1.2, 0.8)])  # still one thing
    assert text(page, "answer") in names and image_of(page).shape == (28, 28)


@browser
def test_a_network_of_other_things_sees_them_in_its_own_frame(show, network):
    names = ["T-shirt/top", *(f"class {n}" for n in range(1, 10))]
    page = show(network, class_names=names, frame={"side": 28, "centre": "box"})
    ink = np.zeros((60, 80), np.uint8)
    ink[10:50, 20:49] = np.arange(29) * 8 + 20
    image = scan.fit(ink / 255, Frame(28, "box"), digits=False)
    (seen, probabilities), logits = (
        see(page, [ink]),
        network(data.to_float(torch.tensor(image)[None])),
    )
    assert (seen == image).all() and image[[0, 27]].any(1).all()
    np.testing.assert_allclose(probabilities, logits.detach().softmax(1), atol=1e-3)  # not turned


@pytest.mark.parametrize(
    "scheme, width, height", [("light", 360, 640), ("dark", 640, 360), ("dark", 1000, 800)]
)
@browser
def test_it_is_readable_in_light_and_dark_on_a_phone_and_a_desktop(page, scheme, width, height):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 700}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        for right in -0.6, 0, 0.6:
            write(page, WAYS[0], right=right)
        assert text(page, "answer") == "000"
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for name in ("drawing", "undo", "clear", "image", "answer"):  # without scrolling
            box = page.find_element("id", name).rect
            assert box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
        for name in ("undo", "clear"):
            assert page.find_element("id", name).rect["height"] >= 44
        shot = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("L")
        assert (np.median(np.asarray(shot)) > 128) == (scheme == "light")
        for name, least in (("answer", 7), ("about", 4.5), ("keys", 4.5)):
            assert contrast(page, name) >= least  # WCAG 2.1, 1.4.3
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def contrast(page, name):
    """The contrast ratio of an element's text on the page."""
    colours = page.execute_script(
        "return [getComputedStyle(document.getElementById(arguments[0])).color, "
        "getComputedStyle(document.body).backgroundColor]",
        name,
    )
    return contrast_ratio(colours)


def contrast_ratio(colours):
    """The contrast ratio, as WCAG defines it, of two colours "rgb(r, g, b)"."""
    luminance = []
    for colour in colours:
        srgb = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        luminance.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(luminance) / min(luminance)
