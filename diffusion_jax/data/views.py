"""How samples are kept, and how they are shown to a person: one `View` for each kind of data.

Samples are what a `sample_fn` returns, as NumPy arrays with the examples along the first axis; frames of a film
have the time along one more before it. Pictures are uint8 [H, W, C] with C = 1 or 3, for `images.save_png`; those
of as many samples are of one size, for `images.save_film`.
"""

import math
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusion_jax.core.protocols import Files, Film, FromImages, Images, Picture
from diffusion_jax.data import images, toys
from diffusion_jax.data.text import Alphabet

MASK = (64, 128, 255)  # the colour of what is not known yet: among greys and black letters nothing is like it
_WIDTH = 1500  # pixels: about what a screen shows of a strip
_LETTERS = 12  # pixels of a letter's height
_GAP = 8  # pixels around text and between panels
_COLUMNS = 96  # letters in a line
_MOMENTS = 8  # panels of a strip, at most


class View(NamedTuple):
    """What to do with samples.

    Attributes:
      files: samples -> {file name: save(binary file)}, what is kept of them; "samples.npz" comes first.
      picture: samples -> uint8 [H, W, C], all of them in one picture.
      strip: frames -> uint8 [H, W, C], a few moments of the way, from left to right.
      shown: how many samples a picture holds; callers pass no more.
      filmed: how many a film holds.
      images: samples -> uint8 [N, H, W, C], for metrics of images; None where samples are none.
      from_images: the other way, of any size: uint8 [N, h, w, c] as samples; None where images alone are none.
      film: samples -> [F] pictures, uint8 [H, W, C], of samples that are films themselves; None where they are not,
        and a film is the way of a chain.
    """

    files: Files
    picture: Picture
    strip: Picture
    shown: int = 100
    filmed: int = 16
    images: Images | None = None
    from_images: FromImages | None = None
    film: Film | None = None


def pictures(darkest: float = -1.0) -> View:
    """Images, float [N, H, W, C] in [`darkest`, 1]; kept as "images", uint8 [N, H, W, C]."""
    scale = 2 / (1 - darkest)
    shift = -scale * darkest - 1

    def pixels(x):
        return images.to_uint8(scale * np.asarray(x, np.float32) + shift)

    return View(
        files=lambda samples: _npz(images=pixels(samples)),
        picture=lambda samples: images.grid(pixels(samples)),
        strip=lambda frames: images.strip(pixels(frames)),
        images=pixels,
        from_images=lambda x: (images.to_float(x) - np.float32(shift)) / np.float32(scale),
    )


def rows(view: View, groups: int) -> View:
    """Rows of samples, [N, P, ...], such as pairs; kept as "images", uint8 [N, P, H, W, C].

    Args:
      view: of the samples; of others than images [N * P, ...] are kept and shown as it does.
      groups: rows of P that stand beside each other in a picture.
    """
    images_of = view.images
    if images_of is None:  # they stand one after another
        return view._replace(
            files=lambda samples: view.files(_flat(samples)), picture=lambda samples: view.picture(_flat(samples))
        )

    def pixels(samples):
        return images_of(_flat(samples)).reshape(samples.shape)

    def picture(samples):
        return images.grid(_flat(pixels(samples)), columns=groups * samples.shape[1])

    return View(files=lambda samples: _npz(images=pixels(samples)), picture=picture, strip=picture)


def _flat(samples):
    """[N, P, ...] -> [N * P, ...]."""
    return samples.reshape(-1, *samples.shape[2:])


def latents() -> View:
    """What a decoder is to make images of, float [N, H, W, C]; kept as "latents", float32 [N, H, W, C].

    Shown without it: the first three channels as red, green and blue (one, as grey), -2..2 as dark to light.
    """

    def colours(x):
        shown = 3 if x.shape[-1] >= 3 else 1
        return images.to_uint8(np.asarray(x)[..., :shown] / 2)

    return View(
        files=lambda samples: _npz(latents=np.asarray(samples, np.float32)),
        picture=lambda samples: images.grid(colours(samples)),
        strip=lambda frames: images.strip(colours(frames)),
    )


def levels(num: int) -> View:
    """Levels of grey, integer [N, H, W, C] in 0..num - 1 (`toys.levels`); kept as "images", uint8 [N, H, W, C].

    `num` itself is the mask: it is shown as `MASK`, or in its channel of it.
    """

    def colours(tokens):
        return np.where(tokens == num, np.array(MASK, np.uint8), toys.to_uint8(tokens, num))

    return View(
        files=lambda samples: _npz(images=toys.to_uint8(samples, num)),
        picture=lambda samples: images.grid(colours(samples)),
        strip=lambda frames: images.strip(colours(frames)),
        images=lambda samples: toys.to_uint8(samples, num),
        from_images=lambda x: toys.to_levels(x, num),
    )


def labelled(classes: int) -> View:
    """{"image": float [N, H, W, C] in [-1, 1], "label": integer [N]}; each label stands above its image.

    Kept as "images", uint8 [N, H, W, C], and "labels", int32 [N]. The label `classes`, the mask, is shown as "?".
    """

    def tile(image, label):
        enlarged = images.grid(image[None], padding=0)
        text = "?" if label == classes else str(label)
        width = enlarged.shape[1]
        caption = Image.new("L", (width, _LETTERS + 4), 255)
        ImageDraw.Draw(caption).text((width / 2, 1), text, fill=0, font=_font(), anchor="ma")
        above = np.repeat(np.asarray(caption)[..., None], image.shape[-1], axis=-1)
        return np.concatenate([above, enlarged])

    def tiles(samples):
        both = zip(images.to_uint8(samples["image"]), np.asarray(samples["label"]).tolist(), strict=True)
        return np.stack([tile(image, label) for image, label in both])

    def strip(frames):
        few = _moments(frames["label"], _MOMENTS)
        return images.strip(np.stack([tiles({name: x[f] for name, x in frames.items()}) for f in few]), scale=1)

    return View(
        files=lambda samples: _npz(
            images=images.to_uint8(samples["image"]), labels=np.asarray(samples["label"], np.int32)
        ),
        picture=lambda samples: images.grid(tiles(samples), scale=1),
        strip=strip,
        images=lambda samples: images.to_uint8(samples["image"]),
    )


def text(alphabet: Alphabet, mask: int) -> View:
    """Text, tokens [N, L] of `alphabet`; kept as "tokens", int32 [N, L], and as samples.txt, a line a sample.

    For the eye a token is always one sign: a newline is "↵", what cannot be printed "�", and the token `mask`
    a "·" in the colour `MASK`.
    """
    signs = np.array(["↵" if c == "\n" else c if c.isprintable() else "�" for c in alphabet.symbols])

    def letters(tokens, sign_of_mask):
        hidden = tokens == mask
        return np.where(hidden, sign_of_mask, signs[np.where(hidden, 0, tokens)])

    def picture(tokens):
        tokens = np.asarray(tokens)
        known, masks = letters(tokens, " "), np.where(tokens == mask, "·", " ")
        starts = range(0, tokens.shape[1], _COLUMNS)  # long samples are folded, and set apart by a gap
        line = _LETTERS + 4
        each = len(starts) * line + (_GAP if len(starts) > 1 else 0)
        width = round(_font().getlength("m") * min(_COLUMNS, tokens.shape[1]))
        canvas = Image.new("RGB", (width + 2 * _GAP, each * len(tokens) + 2 * _GAP), (255, 255, 255))
        draw = ImageDraw.Draw(canvas)
        for n in range(len(tokens)):
            for row, start in enumerate(starts):
                place, piece = (_GAP, _GAP + n * each + row * line), np.s_[n, start : start + _COLUMNS]
                draw.text(place, "".join(known[piece]), fill=(0, 0, 0), font=_font())
                draw.text(place, "".join(masks[piece]), fill=MASK, font=_font())
        return np.asarray(canvas)

    def lines(tokens):
        return "".join("".join(row) + "\n" for row in letters(np.asarray(tokens), "·"))

    return View(
        files=lambda samples: (
            _npz(tokens=np.asarray(samples, np.int32))
            | {"samples.txt": lambda file: file.write(lines(samples).encode())}
        ),
        picture=picture,
        strip=partial(_side_by_side, picture),
        shown=40,
    )


def sequences() -> View:
    """Sequences of images, float [N, T, H, W, C] in [0, 1]; kept as "frames", uint8 [N, T, H, W, C].

    Shown as a row each, time running from left to right: as many moments as fit on a screen. Their film is their own.
    """

    def pixels(x):
        return images.to_uint8(2 * np.asarray(x, np.float32) - 1)

    def picture(samples, width=_WIDTH):
        each = images.grid(pixels(samples[:1, 0])).shape[1]
        return images.strip(pixels(samples).swapaxes(0, 1), columns=max(2, width // each))

    return View(
        files=lambda samples: _npz(frames=pixels(samples)),
        picture=picture,
        strip=partial(_side_by_side, partial(picture, width=_WIDTH // 2 - _GAP)),
        shown=16,
        film=lambda samples: [images.grid(pixels(samples[:, t])) for t in range(samples.shape[1])],
    )


def series() -> View:
    """Series of numbers, float [N, T, d]; kept as "series", float32 [N, T, d]. Shown as curves, a panel for each."""

    def picture(samples, side=240):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        samples = np.asarray(samples)
        columns = math.ceil(math.sqrt(len(samples)))
        rows = math.ceil(len(samples) / columns)
        figure = Figure(figsize=(columns * side / 100, rows * side / 200), dpi=100)
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).reshape(-1)
        for panel in axes:
            panel.set_xticks(())
        for panel, one in zip(axes, samples, strict=False):
            panel.plot(one, linewidth=1)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return View(
        files=lambda samples: _npz(series=np.asarray(samples, np.float32)),
        picture=picture,
        strip=partial(_side_by_side, picture),
        shown=36,
    )


def points(limit: float) -> View:
    """Points of the plane, float [N, 2]; kept as "points", float32 [N, 2].

    Shown within -limit..limit either way, so that the frames of a film line up; points outside are not seen.
    """

    def picture(samples, side=480):
        # matplotlib takes half a second to import. Its pyplot would keep figures for all the process: not used.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        samples = np.asarray(samples)
        figure = Figure(figsize=(side / 100, side / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        shown = (-limit, limit)
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98), xlim=shown, ylim=shown, xticks=(), yticks=())
        # Many points are drawn fainter: where they lie over each other, it shows how dense they are.
        opacity = float(np.clip(1000 / max(1, len(samples)), 0.15, 0.8))
        axes.scatter(samples[:, 0], samples[:, 1], s=side / 80, alpha=opacity, linewidths=0)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return View(
        files=lambda samples: _npz(points=np.asarray(samples, np.float32)),
        picture=picture,
        strip=partial(_side_by_side, partial(picture, side=290)),
        shown=20_000,
        filmed=2000,
    )


def _npz(**arrays):
    return {"samples.npz": lambda file: np.savez_compressed(file, **arrays)}


def _moments(frames, num):
    """`num` indices of frames, evenly spaced, the first and the last among them; all, if there are fewer."""
    return np.linspace(0, len(frames) - 1, min(num, len(frames))).round().astype(int)


def _side_by_side(picture, frames):
    """Panels of a few frames, as many as fit on a screen, two at least."""
    last = picture(frames[-1])
    fitting = (_WIDTH + _GAP) // (last.shape[1] + _GAP)
    few = _moments(frames, max(2, min(_MOMENTS, fitting)))
    gap = np.full((last.shape[0], _GAP, last.shape[-1]), 255, np.uint8)
    row = [part for f in few for part in (gap, picture(frames[f]))]
    return np.concatenate(row[1:], axis=1)


@cache
def _font():
    """DejaVu Sans Mono, which matplotlib brings along: many scripts, and every letter of one width."""
    from matplotlib import get_data_path

    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")
    return ImageFont.truetype(path, _LETTERS, layout_engine=ImageFont.Layout.BASIC)
