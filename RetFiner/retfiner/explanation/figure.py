"""The explanation as a picture, maps as transparent colour over the gray B-scan: a panel a word."""

from __future__ import annotations

import math
import textwrap
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image

from retfiner.common.files import whole_file
from retfiner.evaluation.pages import Pixels, as_8bit
from retfiner.explanation.explain import Array, ExamExplanation, Explanation

COLOURS = "inferno"
STRONGEST = 0.65
"""Opacity of the strongest patch: the B-scan stays visible below it."""
PANEL_INCHES = 2.1
MOST_COLUMNS = 6
DPI = 110
OTHER_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei",
    "SimSun", "Yu Gothic", "MS Gothic", "Malgun Gothic", "PingFang SC", "Heiti SC",
    "Hiragino Sans", "Hiragino Sans GB", "AppleGothic", "Arial Unicode MS",
)  # fmt: skip
"""Fonts of the systems in use with the letters of scripts that Matplotlib's own has not."""


class Panel(NamedTuple):
    """An image, the map (g, g) upon it, and how strong that is beside others, from 0 to 1."""

    title: str
    image: Array
    overlay: Array | None = None
    weight: float = 1.0


def find_fonts(text: str) -> tuple[list[str], bool]:
    """Choose installed fonts that have a text's letters, and say whether any of these is lacking.

    Returns:
        Families in the order in which a letter is looked for, and whether one is in none of them.
    """
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    installed = {entry.name: entry.fname for entry in fontManager.ttflist}
    lacking, chosen = {ord(sign) for sign in text if not sign.isspace()}, []
    for name in ("DejaVu Sans", *OTHER_FONTS):
        if (
            lacking
            and name in installed
            and (found := lacking & FT2Font(installed[name]).get_charmap().keys())
        ):
            chosen.append(name)
            lacking -= found
    return chosen or ["DejaVu Sans"], bool(lacking)


def write_figure(
    path: Path, explanation: Explanation | ExamExplanation, weighted: bool = True
) -> bool:
    """Draw the B-scan, its rollout, and the gradient-weighted or plain map of each word, as PNG.

    Of an exam, each word at the image that it looks at most.

    Returns:
        Whether the report can be read there: some installed font has each of its letters.
    """
    fonts, is_lacking = find_fonts(explanation.report)
    with mpl.rc_context({"font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # said once, by the caller
        _write_figure(path, explanation, weighted)
    return not is_lacking


def _write_figure(path: Path, explanation: Explanation | ExamExplanation, weighted: bool) -> None:
    # Here alone: the browse page colours maps and leaves nothing behind, not even a list of fonts.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(explanation, weighted)
    columns = min(MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    height, width = panels[0].image.shape[:2]
    panel = PANEL_INCHES * min(max(height / width, 0.4), 1.6)
    titles = 0.3 if isinstance(explanation, Explanation) else 0.5
    figure = Figure((columns * PANEL_INCHES, rows * (panel + titles) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, one in zip(axes.flat, panels, strict=False):
        _draw(axis, one)
    kind = "gradient-weighted cross-attention" if weighted else "cross-attention"
    lines = textwrap.wrap(explanation.report, 24 * columns)
    note = (
        f"{summarise(explanation)} Maps: {kind}; each by its own maximum, pale titles: weak maps."
    )
    lines += textwrap.wrap(note, 24 * columns)
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left")
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": "RetFiner"})


def _panels(explanation: Explanation | ExamExplanation, weighted: bool) -> list[Panel]:
    maps = explanation.weighted if weighted else explanation.attention
    if isinstance(explanation, Explanation):
        image, flow = explanation.image, relative(explanation.rollout)
        panels = [Panel("B-scan", image), Panel("rollout", image, flow)]
        return panels + [
            Panel(_short(word.text), image, overlay, weight)
            for word, overlay, weight in zip(
                explanation.words, relative(maps), strengths(maps).tolist(), strict=True
            )
        ]
    shares = explanation.shares(weighted)
    most = int(shares.sum(0).argmax())
    image, flow = explanation.images[most], relative(explanation.rollout[most])
    name = f"\n{explanation.names[most]}"
    panels = [Panel(f"most looked at{name}", image), Panel(f"rollout{name}", image, flow)]
    weights = strengths(maps.reshape(len(maps), -1, maps.shape[-1])).tolist()
    for word, own, share, weight in zip(explanation.words, maps, shares, weights, strict=True):
        best = int(share.argmax())
        title = f"{_short(word.text)}\n{explanation.names[best]}: {share[best]:.0%}"
        panels.append(Panel(title, explanation.images[best], relative(own[best]), weight))
    return panels


def _short(word: str) -> str:
    return textwrap.shorten(word, 24, placeholder="...")


def _draw(axis: Any, panel: Panel) -> None:
    axis.imshow(panel.image, cmap="gray", vmin=0, vmax=1, aspect="auto")
    if panel.overlay is not None:
        big = np.clip(enlarged(panel.overlay, panel.image.shape[:2]), 0, 1)
        axis.imshow(coloured(big), aspect="auto")
    shade = 0.62 * (1 - math.sqrt(panel.weight))
    axis.set_title(panel.title, fontsize=9, color=(shade,) * 3)


def relative(maps: Array) -> Array:
    """Scale each map (..., g, g) to [0, 1] by its own maximum; an empty map stays empty."""
    highest = maps.max(axis=(-2, -1), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def strengths(maps: Array) -> Array:
    """Give the strength of each map (W, g, g), 1 for the strongest: its sum over the image."""
    sums = maps.sum(axis=(-2, -1))
    return sums / sums.max() if sums.max() > 0 else sums


def coloured(values: Array) -> Pixels:
    """Colour a map (g, g) in [0, 1]: (g, g, 4), the opacity rising with the value's square."""
    rgba = mpl.colormaps[COLOURS](0.25 + 0.75 * values)
    rgba[..., 3] = STRONGEST * values**2
    return as_8bit(rgba)


def enlarged(values: Array, size: tuple[int, int]) -> Array:
    """Enlarge a map (g, g) to (H, W) pixels, bilinear between the centres of patches."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def summarise(explanation: Explanation | ExamExplanation) -> str:
    """Say in a line how well image and report match, and which layer is shown."""
    height, width = explanation.rollout.shape[-2:]
    exam = ""
    if isinstance(explanation, ExamExplanation):
        exam = f", {len(explanation.images)} images of an exam: each word where it looks most"
    return (
        f"Match by the model: {explanation.match:.2f} (not calibrated). "
        f"Cross-attention layer {explanation.layer}, {height} x {width} patches{exam}."
    )
