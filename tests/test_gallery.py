"""The mistakes as records, pictures and a page, and what Chromium makes of the page."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_draw import HOSTILE, browser, contrast_ratio, press

from digits import gallery

FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")


def read_content(page):
    """What is inside a page: the content, and the images uint8 [M, 1 + K, 28, 28]."""
    (text,) = re.findall('<script type="application/json" id="content">(.*?)</script>', page)
    content = json.loads(text)
    sprite = np.asarray(Image.open(io.BytesIO(base64.b64decode(content.pop("sprite")))))
    rows, columns = (n // 28 for n in sprite.shape)
    return content, sprite.reshape(rows, 28, columns, 28).swapaxes(1, 2)


def test_mistakes_come_in_order_of_confidence_and_ties_by_index():
    logits = torch.zeros(6, 10)
    logits[0, 3] = 5  # wrong
    logits[1, 1] = 9  # right
    logits[2, 4] = 20  # wrong, with a probability that is 1 in float32
    logits[3, 3] = 5  # wrong, as confident as image 0
    logits[4, 6] = 25  # wrong, with a probability nearer to 1 than image 2
    logits[5, 7] = 1  # wrong
    mistakes = gallery.find_mistakes(logits, torch.ones(6, dtype=torch.int64), list("abcdefghij"))
    found = [(m.index, m.true, m.predicted) for m in mistakes]
    assert found == [(4, *"bg"), (2, *"be"), (0, *"bd"), (3, *"bd"), (5, *"bh")]
    assert mistakes[-1].probability == pytest.approx(np.e / (np.e + 9))


@pytest.mark.parametrize("count, first", [(10, "01_true-1_"), (99, "01_"), (120, "001_")])
def test_names_sort_by_rank_and_a_sheet_has_its_limit(drawn, monkeypatch, count, first):
    monkeypatch.setattr(gallery, "contact_sheet", lambda *sheet: sheet)
    mistakes = [gallery.Mistake(i, "1", "é", 1 - i / 1000) for i in range(count)]
    *names, sheet = (made := gallery.picture_mistakes(mistakes, drawn[0], [*"012é456789"]))
    assert len(names) == count and names == sorted(names) and names[0].startswith(first)
    pictures, captions, columns = made[sheet]
    assert len(pictures) == len(captions) == min(count, 100)
    assert captions[0].startswith("1. true 1\nread as class 3\n")
    assert (sheet, columns) == ("contact_sheet.png", 5 if count == 10 else 10)
    assert all(gallery.PICTURE.fullmatch(name) for name in made)


def test_the_nearest_are_those_of_the_smallest_distance():
    generator = torch.Generator().manual_seed(0)
    few, many = (torch.rand(n, 128, generator=generator) for n in (2 * gallery.BLOCK + 1, 1000))
    expected = torch.cdist(few, many).argsort(1)[:, :3]
    assert torch.equal(gallery.nearest(few, many), expected)
    assert gallery.nearest(few, many[:2]).shape == (len(few), 2)
    assert gallery.nearest(few[:0], many).shape == (0, 3)


SENSITIVITY = bytes([255, *[128] * 194, 1])  # wholly for what was read, neither, wholly against


def make_page(count, class_names="0123456789", mistakes=None):
    """A page of the first of these mistakes [(true, predicted)], or of any, in images of noise."""
    generator = np.random.default_rng(0)
    mistakes = mistakes or [generator.choice(10, 2, replace=False).tolist() for _ in range(count)]
    confusion = 1000 * torch.eye(10, dtype=torch.int64)
    rows = []
    for i, (true, predicted) in enumerate(mistakes):
        confusion[true, predicted] += 1
        shares = {true: 0.005, predicted: 0.7}
        row = {"index": 9000 + i, "true": true, "predicted": predicted}
        row["probabilities"] = [shares.get(label, 0 if label else 0.2) for label in range(10)]
        row["trait"] = "none" if i % 2 else "proportion 0.41, less than 99% of its class"
        row["alike"] = [{"index": 50_000 + k, "label": (predicted + k) % 10} for k in range(3)]
        row["sensitivity"] = base64.b64encode(SENSITIVITY).decode()
        rows.append(row)
    images = torch.from_numpy(generator.integers(0, 256, (count, 4, 28, 28), np.uint8))
    return gallery.fill_page("98.07% are right", list(class_names), confusion, rows[:count], images)


def test_it_is_one_file_below_2_mb_that_asks_for_nothing(network):
    page = make_page(gallery.MOST)
    assert 10**6 < len(page.encode()) < 2 * 10**6  # of noise, which no format makes smaller
    assert len(read_content(page)[1]) == gallery.MOST >= 300
    code = re.sub('"sprite":"[^"]*"', "", page)
    assert not re.search(r"https?:|//\w+\.|\bsrc=|\bhref=|@import|fetch\(|XMLHttp|import\(", code)
    assert "default-src 'none'" in page and gallery.TITLE in page
    assert re.search(r"<noscript>.*needs JavaScript.*</noscript>", page)


# In the browser.


@pytest.fixture
def show(chromium, tmp_path):
    """show(page): the browser, which shows a page; it must not complain."""

    def show(page):
        Path("index.html").write_text(page)
        chromium.get(Path("index.html").resolve().as_uri())
        if '"sprite":""' not in page:
            chromium.execute_async_script(
                "const wait = () => document.body.dataset.drawn ? arguments[0]()"
                " : setTimeout(wait, 10); wait()"
            )
        return chromium

    chromium.get_log("browser")
    yield show
    assert chromium.get_log("browser") == []  # neither errors nor refused requests


def status(page):
    return page.find_element("id", "status").text


def find(page, selector):
    return page.find_elements("css selector", selector)


def cards(page):
    """The titles of the cards that are seen."""
    return [title.text for title in find(page, ".card h2") if title.is_displayed()]


def cell(page, name):
    """The button of the confusion matrix with such a name, but for the number of mistakes."""
    buttons = find(page, "table button")
    return next(each for each in buttons if each.accessible_name.split(":")[0] == name)


def pressed(page):
    return [button.accessible_name for button in find(page, "button[aria-pressed=true]")]


CONFUSED = [(4, 9), (9, 4), (4, 9), (4, 7), (3, 9)]  # true, predicted


@browser
def test_a_click_in_the_matrix_chooses_mistakes_and_another_shows_all(show):
    page = show(make_page(5, mistakes=CONFUSED))
    everything = [f"{true} read as {predicted}" for true, predicted in CONFUSED]
    assert status(page) == "5 mistakes" and cards(page) == everything and pressed(page) == ["All"]
    assert len(find(page, "td button")) == 1 + 4  # All, and those confused

    cell(page, "4 read as 9").click()
    assert status(page) == "2 mistakes: 4 read as 9" and cards(page) == ["4 read as 9"] * 2
    assert pressed(page) == ["4 read as 9: 2 mistakes"]
    cell(page, "4 read as 9").click()
    assert cards(page) == everything and pressed(page) == ["All"]

    find(page, "th[scope=row] button")[0].click()  # the first with mistakes
    assert status(page) == "1 mistake: 3 read as another class" and cards(page) == ["3 read as 9"]
    find(page, "th[scope=col] button")[-1].click()
    assert status(page) == "3 mistakes: another class read as 9" and len(cards(page)) == 3
    cell(page, "All").click()
    assert cards(page) == everything
    assert page.find_element("id", "status").get_attribute("role") == "status"


@browser
def test_far_down_a_choice_brings_its_mistakes_into_view(show):
    page = show(make_page(300))
    page.execute_script("scrollTo(0, document.body.scrollHeight)")
    top = "return document.getElementById('status').getBoundingClientRect().top"
    assert page.execute_script(top) < -1000
    find(page, "td button")[1].click()
    assert 0 <= page.execute_script(top) < 100


@browser
def test_the_keyboard_goes_through_the_matrix_and_chooses(show):
    from selenium.webdriver.common.keys import Keys

    page = show(make_page(5, mistakes=CONFUSED))

    def focused_after(*keys):
        for key in keys:
            press(page, key)
        return page.switch_to.active_element.accessible_name

    assert focused_after(Keys.TAB, Keys.TAB) == "All"
    assert focused_after(Keys.ARROW_DOWN, Keys.ARROW_DOWN) == "4"
    # Over those that are never confused, and no further than the last.
    assert focused_after(Keys.ARROW_RIGHT) == "4 read as 7: 1 mistake"
    for key in Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.SPACE:
        assert focused_after(key) == "4 read as 9: 2 mistakes"
    assert pressed(page) == ["4 read as 9: 2 mistakes"] and len(cards(page)) == 2
    assert focused_after(Keys.ARROW_UP, Keys.ENTER) == "3 read as 9: 1 mistake"
    assert pressed(page) == ["3 read as 9: 1 mistake"] and cards(page) == ["3 read as 9"]
    press(page, Keys.SHIFT, Keys.TAB)  # The table is one stop.
    assert page.switch_to.active_element.tag_name == "summary"
    assert focused_after(Keys.TAB) == "3 read as 9: 1 mistake"


@browser
def test_a_card_shows_image_probabilities_trait_and_what_is_alike(show):
    source = make_page(5, mistakes=CONFUSED)
    page = show(source)
    first, second = find(page, ".card")[:2]
    bars = [bar.text for bar in find(first, ".bars li")]
    assert bars == ["9\n70.00%", "0\n20.00%", "4 (true)\n0.50%"]
    styles = [bar.get_attribute("style") for bar in find(first, ".bars div div")]
    assert [float(re.search(r"width: ([\d.]+)%", style)[1]) for style in styles] == [70, 20, 0.5]
    assert "proportion 0.41, less than 99% of its class" in first.text
    assert "nothing unusual" in second.text
    names = [canvas.accessible_name for canvas in find(first, "canvas")]
    alike = [f"{label}, training image {50_000 + k}" for k, label in enumerate((9, 0, 1))]
    tinted = "the same, with what speaks for 9 in orange, for 4 in blue"
    assert names == ["4 read as 9, image 9000", tinted, *alike]
    assert [label.text for label in find(first, ".alike li")] == ["9", "0", "1"]
    drawn = page.execute_script(
        "return [...document.querySelectorAll('.card canvas')].map(canvas => "
        "[...canvas.getContext('2d').getImageData(0, 0, 28, 28).data])"
    )
    drawn = np.array(drawn).reshape(5, 5, 28, 28, 4)
    images, tinted = read_content(source)[1], drawn[:, 1, ..., :3]
    assert (drawn[..., 0][:, [0, 2, 3, 4]] == images).all()
    tints = np.full((28, 28, 3), 255)
    tints[:2, :2], tints[-2:, -2:] = (255, 128, 0), (40, 130, 255)
    assert np.abs(tinted - images[:, 0, ..., None] * (tints / 255)).max() <= 1


@browser
def test_more_mistakes_than_the_page_holds_and_none(show):
    page = show(make_page(3, mistakes=CONFUSED))
    assert status(page) == "5 mistakes, 3 of them on this page" and len(cards(page)) == 3
    page.find_element("tag name", "summary").click()
    assert "Of 5 mistakes here are the 3" in page.find_element("id", "method").text
    cell(page, "3 read as 9").click()
    assert status(page) == "1 mistake: 3 read as 9, 0 of them on this page" and cards(page) == []

    nothing = torch.empty(0, 1, 28, 28, dtype=torch.uint8)
    page = show(gallery.fill_page("", list("0123456789"), torch.eye(10).long(), [], nothing))
    assert status(page) == "No mistakes: every image is read right." and cards(page) == []
    assert find(page, "button") == []
    assert not page.find_element("tag name", "summary").is_displayed()


@browser
def test_class_names_are_shown_as_they_are_and_run_nothing(show):
    names = [*HOSTILE, *FASHION[:4], "x" * 300]
    page = show(make_page(2, names, mistakes=[(0, 4), (9, 5)]))
    assert page.title == "Mistakes of the 784-128-10 network"
    shown = find(page, "h2, th[scope=row]")
    titles = [f"{names[0]} read as {names[4]}", f"{names[9]} read as {names[5]}"]
    assert [each.get_attribute("textContent") for each in shown] == names + titles
    assert find(page, "main script, main b") == []


COLOURS = """return [...document.querySelectorAll(arguments[0])].map(element => {
  let behind = element;  // what is seen through it
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)")
    behind = behind.parentElement;
  return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map(colour => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return `rgb(${pen.getImageData(0, 0, 1, 1).data.slice(0, 3).join(", ")})`;
  });
})"""


@pytest.mark.parametrize("names", ["0123456789", [*FASHION[:8], "x" * 300, "Ankle boot"]])
@pytest.mark.parametrize("scheme, width", [("light", 360), ("dark", 800), ("light", 1300)])
@browser
def test_it_is_readable_in_light_and_dark_on_a_phone_and_a_desktop(
    show, chromium, names, scheme, width
):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    screen = {"width": width, "height": 900, "deviceScaleFactor": 2, "mobile": width < 700}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        page = show(make_page(60, names))
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for box in (button.rect for button in find(page, "table button")):
            assert box["width"] >= 24 and box["height"] >= 24  # WCAG 2.2, 2.5.8
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
        shot = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("L")
        assert (np.median(np.asarray(shot)) > 128) == (scheme == "light")
        for text in ("td, th", "td button", "th button", ".quiet", "h2", ".bars span", "#status"):
            ratios = [contrast_ratio(pair) for pair in page.execute_script(COLOURS, text)]
            assert min(ratios) >= 4.5  # WCAG 2.1, 1.4.3
    finally:
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
