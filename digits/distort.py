"""Distortions of batches of digits, on any device, each image with parameters of its own.

Images are float32 [N, 1, 28, 28] in [0, 1]. Coordinates are pixels from the middle of the image,
x to the right and y down.
"""

import functools
import math

import torch
import torch.nn.functional as F

PIXEL = torch.arange(28) - 13.5  # coordinates of the centres of the pixels
BLOCK = 2**16  # images whose distortions are drawn at once
PIXEL_VARIANCE = 1 / 12  # of the place in one pixel, which no ink has less of
WIDTH, HEIGHT = 3.6, 5.8  # pixels: usual deviations of MNIST's ink, upright, from its middle
SPACING = 0.6  # pixels: width of the Gaussian that joins the segments of a stroke to a line


@functools.cache
def constants(device):
    """PIXEL, and x, y, 1, xx, xy, yy of the places of all pixels, [6, 784], on a device.

    They move there once, because a GPU is waited for whenever anything moves.
    """
    x, y = PIXEL.repeat(28), PIXEL.repeat_interleave(28)
    return PIXEL.to(device), torch.stack([x, y, torch.ones(784), x * x, x * y, y * y]).to(device)


constants(PIXEL.device)  # made here, because torch.export would leave stand-ins in the cache


def affine(rotation=0.0, slant=0.0, width=1.0, height=1.0, right=0.0, down=0.0):
    """The float32 matrices [N, 2, 3] that warp() takes, from float32 tensors [N] or numbers.

    An image is stretched by the factors width and height, then slanted and then turned by degrees,
    both clockwise (an upright bar comes to lean to the right), then moved right and down by pixels.
    """
    values = (torch.as_tensor(value) for value in (rotation, slant, width, height, right, down))
    rotation, slant, width, height, right, down = torch.broadcast_tensors(*values)
    cos, sin, tan = rotation.deg2rad().cos(), rotation.deg2rad().sin(), slant.deg2rad().tan()
    # The inverse of turn @ slant @ stretch: from a pixel of the result to its place in the image.
    xx, xy = (cos - tan * sin) / width, (sin + tan * cos) / width
    yx, yy = -sin / height, cos / height
    rows = xx, xy, -xx * right - xy * down, yx, yy, -yx * right - yy * down
    return torch.stack(rows, -1).view(-1, 2, 3)


def warp(images, matrices):
    """Images moved by the matrices [N, 2, 3] of affine(), or by one, interpolated bilinearly."""
    # One product for the batch: F.affine_grid is eight times slower on a CPU. grid_sample's unit is
    # half the width of an image, 14 pixels.
    _, places = constants(images.device)
    grid = (matrices.reshape(-1, 3) / 14 @ places[:3]).view(-1, 2, 28, 28).permute(0, 2, 3, 1)
    grid = grid.expand(images.shape[0], 28, 28, 2)  # not len(): torch.export takes it for fixed
    return F.grid_sample(images, grid, align_corners=False)


def compose(first, second):
    """The matrices [N, 2, 3] that warp as the first ones do and then the second ones."""
    product = first[..., :2] @ second
    product[..., 2] += first[..., 2]
    return product


def measure_moments(images):
    """(middle [N, 2], covariance [N, 2, 2]) of the ink, in x and y: its first two moments."""
    _, places = constants(images.device)
    sums = images.flatten(1) @ places.T
    x, y, _, xx, xy, yy = (sums / sums[:, 2:3].clamp(min=1e-6)).unbind(1)
    covariance = torch.stack([xx - x * x, xy - x * y, xy - x * y, yy - y * y], 1)
    return torch.stack([x, y], 1), covariance.view(-1, 2, 2)


def measure_slant(covariance):
    """The tangent [N] of the angle by which ink of a covariance [N, 2, 2] leans to the right."""
    return -covariance[:, 0, 1] / covariance[:, 1, 1].clamp(min=PIXEL_VARIANCE)  # y points down


def uprighting(middle, covariance, level):
    """The matrices [N, 2, 3] that take the moments out of ink of a middle and a covariance.

    About its middle the ink is sheared, by 45 degrees at most, to lean neither way: Y. LeCun et
    al., "Gradient-based learning applied to document recognition" (1998), who took the slant out of
    MNIST by its second moments. At level 2 half of what its width and its height, as deviations,
    differ from the usual ones is taken out as well, on a scale of logarithms, by a factor of two at
    most: a part of the moment normalization of R. G. Casey, "Moment normalization of handprinted
    characters" (1970).
    """
    tangent = measure_slant(covariance).clamp(-1, 1)
    width = height = torch.ones_like(tangent)
    if level == 2:
        down = covariance[:, 1, 1].clamp(min=PIXEL_VARIANCE)
        across = (covariance.det() / down).clamp(min=PIXEL_VARIANCE)  # without the slant
        width, height = (
            (variance / usual**2).pow(0.25).clamp(0.5, 2)
            for variance, usual in ((across, WIDTH), (down, HEIGHT))
        )
    # From a place in the result to one in the image, as affine().
    rows = width, -tangent * height, torch.zeros_like(tangent), height
    linear = torch.stack(rows, 1).view(-1, 2, 2)
    middle = middle[..., None]
    return torch.cat([linear, middle - linear @ middle], -1)


def take_out_moments(images, level):
    """Images without their slant (level 1), and half of their width and height (2), or as they are
    (0): see uprighting().
    """
    return warp(images, uprighting(*measure_moments(images), level)) if level else images


def pen(start, end, radius):
    """Ink [N, 1, 28, 28] of strokes made of short segments from start to end, both [N, K, 2].

    The radius [N] of the pen is in pixels, 5 at most.
    """
    # The distance from each pixel to the stroke, by the log of a sum of Gaussians along it. A
    # Gaussian is a product of one in x and one in y: the sum is one matrix product per image.
    middle = (start + end) / 2
    pixel, _ = constants(start.device)
    exponent = ((pixel - middle[..., None]) / SPACING) ** 2 / -2
    # Both limits are more than 5.8 pixels away, and spare exp and log numbers so tiny that they
    # take several times as long.
    x, y = exponent.clamp(min=-50).exp().unbind(2)
    length = (end - start).norm(dim=2, keepdim=True) / (SPACING * math.sqrt(2 * math.pi))
    distance = SPACING * (-2 * ((length * y).mT @ x).clamp(1e-20, 1).log()).sqrt()
    ink = (0.5 + (radius[:, None, None] - distance) / 1.1).clamp(0, 1)  # an edge of 1.1 pixels
    return ink[:, None]


def bend(control):
    """The start and end, both [N, 12, 2], of 12 segments of quadratic Bezier curves [N, 3, 2]."""
    t = torch.linspace(0, 1, 13, device=control.device)[:, None]
    points = torch.cat([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1) @ control
    return points[:, :-1], points[:, 1:]


def occlude(images, low, high):
    """Images with a rectangle wiped out, between its corners low and high, both [N, 2]."""
    pixel, _ = constants(images.device)
    x, y = ((low[..., None] < pixel) & (pixel < high[..., None])).unbind(1)
    return images * ~(y[:, None, :, None] & x[:, None, None, :])


def draw(count, settings, generator):
    """Random parameters, tensors [count, ...] on the CPU by name, as distorted() takes them.

    settings has the attributes rotation, slant, smallest, ... of recipes.Settings.
    """

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    marks = settings.occlusion or settings.extra_writing
    warps = settings.rotation or settings.slant or settings.shift
    if not (marks or warps or settings.smallest < 1 or settings.largest > 1):
        return {}
    # The warp of an image is uniform up to an amplitude of its own: most are light, few are strong.
    # With the same limits and without it, networks err twice as often on images as they are.
    amplitude = uniform(0, 1)
    size = math.log(settings.smallest), math.log(settings.largest)
    width, height = (amplitude * uniform(*size)).exp(), (amplitude * uniform(*size)).exp()
    rotation, slant, right, down = (
        amplitude * uniform(-highest, highest)
        for highest in (settings.rotation, settings.slant, settings.shift, settings.shift)
    )
    parameters = {"matrices": affine(rotation, slant, width, height, right, down)}
    if marks:
        middle, half = uniform(-10, 10, 2), uniform(2, 7, 2)
        parameters["strokes"] = uniform(-14, 14, 1, 2) + uniform(-9, 9, 3, 2)
        parameters["patches"] = torch.stack([middle - half, middle + half], 1)
        parameters["radius"] = uniform(0.5, 1.8)
    return parameters


def distorted(images, settings, matrices=None, patches=None, strokes=None, radius=None):
    """Images warped by matrices [N, 2, 3], and a share of them occluded and written on.

    patches, [N, 2, 2], are the corners of rectangles; strokes, [N, 3, 2], are curves as in bend(),
    of a pen of a radius [N]. The images come in random order, so those at either end will do:
    slices need no work on the other images, and no waiting for a GPU to learn which they are.
    """
    if matrices is None:
        return images
    images = warp(images, matrices)
    if strokes is None:
        return images
    if occluded := round(settings.occlusion * len(images)):
        first = slice(occluded)
        images[first] = occlude(images[first], *patches[first].unbind(1))
    if written_on := round(settings.extra_writing * len(images)):
        last = slice(-written_on, None)
        images[last] = images[last].maximum(pen(*bend(strokes[last]), radius[last]))
    return take_out_moments(images, settings.moments)


def distortions(count, batch_size, settings, generator, device="cpu", moments=None):
    """Yield for each batch of an epoch of `count` images a function that distorts its images, and
    takes their moments out where the settings tell so.

    moments are what measure_moments() returns of all the images in their order, needed in that case
    only. What is random is drawn on the CPU, for many batches at once, which is faster, but not for
    all of a large dataset, which would take more memory than its images.
    """
    block = max(1, BLOCK // batch_size) * batch_size
    for start in range(0, count, block):
        parameters = draw(min(block, count - start), settings, generator)
        parameters = {name: tensor.to(device) for name, tensor in parameters.items()}
        if settings.moments and "strokes" not in parameters:
            parts = [tensor[start : start + block] for tensor in moments]
            parameters["matrices"] = _upright(parameters.get("matrices"), *parts, settings.moments)
        for first in range(0, min(block, count - start), batch_size):
            batch = {name: t[first : first + batch_size] for name, t in parameters.items()}
            yield functools.partial(distorted, settings=settings, **batch)


def _upright(matrices, middle, covariance, level):
    """The matrices that warp as some do, or None does, and then take the moments out.

    The moments are those of the ink before that warp.
    """
    if matrices is None:
        return uprighting(middle, covariance, level)
    inverse = matrices[..., :2].inverse()
    middle = (inverse @ (middle - matrices[..., 2])[..., None])[..., 0]
    return compose(matrices, uprighting(middle, inverse @ covariance @ inverse.mT, level))


# One cause at a time: each function distorts images float32 [N, 1, 28, 28] on the CPU, as severely
# as told. What is random, the side or the place, comes from the generator.


def to_either_side(name, images, value, generator):
    """Warped by a parameter of affine(), by the value or by its opposite."""
    sides = torch.randint(2, (len(images),), generator=generator) * 2.0 - 1
    return warp(images, affine(**{name: value * sides}))


def stretch(names, images, factor, generator):
    """Warped by one factor for all parameters of affine() that are named."""
    return warp(images, affine(**dict.fromkeys(names, factor)))


def move(images, pixels, generator):
    """In any direction."""
    angle = 2 * math.pi * torch.rand(len(images), generator=generator)
    return warp(images, affine(right=pixels * angle.cos(), down=pixels * angle.sin()))


def wipe_disc(images, pixels, generator):
    """A disc is wiped out, its middle in the ink and its diameter given."""
    ink = images.flatten(1) + 1e-9  # where an image is blank, any pixel may be the middle
    middle = ink.multinomial(1, generator=generator)[..., None]
    x, y = PIXEL[middle % 28], PIXEL[middle // 28]
    inside = (PIXEL - x) ** 2 + (PIXEL[:, None] - y) ** 2 < (pixels / 2) ** 2
    return images * ~inside[:, None]


def add_line(images, pixels, generator):
    """A straight line 2 pixels thick and of the given length, anywhere and in any direction."""
    middle = 20 * torch.rand(len(images), 1, 2, generator=generator) - 10
    angle = math.pi * torch.rand(len(images), 1, generator=generator)
    along = torch.linspace(-pixels / 2, pixels / 2, 2 * pixels + 1)
    points = middle + torch.stack([angle.cos() * along, angle.sin() * along], -1)
    line = pen(points[:, :-1], points[:, 1:], torch.ones(len(images)))
    return images.maximum(line)


def add_neighbour(images, pixels, generator):
    """Another of the images to the left or right, as far from middle to middle as given."""
    others = images[torch.randperm(len(images), generator=generator)]
    return images.maximum(to_either_side("right", others, pixels, generator))
