"""Pictures of images of 28 x 28 pixels."""

from PIL import Image, ImageDraw, ImageFont

GAP = 16  # pixels around the pictures of a contact sheet
FONT = 17  # pixels


def enlarge(image, scale):
    """A picture of an image uint8 [28, 28] with hard-edged pixels."""
    picture = Image.fromarray(image.numpy())
    return picture.resize((28 * scale, 28 * scale), Image.Resampling.NEAREST)


def contact_sheet(pictures, captions, columns):
    """One picture of many of one size, each with its caption (lines of text) below it."""
    font = ImageFont.load_default(FONT)
    across, down = pictures[0].size
    lines = max(caption.count("\n") + 1 for caption in captions)
    width, height = across + GAP, down + GAP + lines * (FONT + 4)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("L", (columns * width + GAP, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for position, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + position % columns * width
        top = GAP + position // columns * height
        sheet.paste(picture, (left, top))
        pen.multiline_text((left, top + down + GAP // 4), caption, "black", font)
    return sheet
