"""The explanation as a page: pointing at a word shows where it looks.

The page stands alone: images, styles and the few lines of script lie within it. Every word is a
button, so that the keyboard and screen readers reach it.
"""

from __future__ import annotations

import html
import json

from retfiner.explanation.explain import Explanation
from retfiner.explanation.overlay import (
    Array,
    as_8bit,
    coloured,
    data_uri,
    relative,
    strengths,
    verdict,
)

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 56rem; background: #fff;
  color: #1a1a1a; font: 16px/1.55 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .3rem; }
.lead, .notes { color: #555; margin: 0 0 1rem; }
.notes { font-size: .9rem; }
.scan { position: relative; background: #000; line-height: 0; }
.scan img { width: 100%; height: auto; display: block; }
.scan #map { position: absolute; inset: 0; width: 100%; height: 100%; }
.report { font-size: 1.2rem; line-height: 1.3; margin: .8rem 0; }
.report button { font: inherit; color: inherit; padding: .05em .3em; border: 1px solid #bbb;
  border-radius: 4px; margin: .15em 0; cursor: pointer;
  background: rgba(230, 120, 20, calc(var(--s) * .55)); }
.report button.shown { border-color: #1a1a1a; box-shadow: 0 0 0 1px #1a1a1a; }
.report button:focus-visible, fieldset input:focus-visible { outline: 3px solid #0060c0;
  outline-offset: 2px; }
.unread { color: #999; text-decoration: line-through; }
fieldset { border: 0; padding: 0; margin: 0 0 .8rem; }
legend { float: left; margin-right: .8rem; }
label { margin-right: 1rem; white-space: nowrap; }
#status { min-height: 1.5em; margin: .4rem 0; }
"""

SCRIPT = """
const maps = JSON.parse(document.getElementById("maps").textContent);
const overlay = document.getElementById("map");
const status = document.getElementById("status");
const words = [...document.querySelectorAll("[data-word]")];
let kept = Number(document.body.dataset.start), kind = "weighted";
function show(place) {
  const word = words[place], name = word.textContent;
  const chosen = word.dataset.word === "image" ? maps.image : maps[kind][word.dataset.word];
  overlay.src = chosen.map;
  words.forEach((w, i) => w.classList.toggle("shown", i === place));
  words.forEach((w) => w.style.setProperty("--s",
    w.dataset.word === "image" ? 0 : maps[kind][w.dataset.word].strength));
  status.textContent = word.dataset.word === "image" ? "Attention rollout of the whole image" :
    `“${name}”, strength ${Math.round(100 * chosen.strength)} % of the strongest word`;
}
function keep(place) {
  kept = place;
  words.forEach((w, i) => w.setAttribute("aria-pressed", i === kept));
  show(kept);
}
words.forEach((word, place) => {
  word.addEventListener("mouseenter", () => show(place));
  word.addEventListener("focus", () => show(place));
  word.addEventListener("mouseleave", () => show(kept));
  word.addEventListener("blur", () => show(kept));
  word.addEventListener("click", () => keep(place));
});
document.querySelectorAll("input[name=kind]").forEach((input) =>
  input.addEventListener("change", () => { kind = input.value; show(kept); }));
keep(kept);
"""


def build_page(explanation: Explanation) -> str:
    """Build the page.

    Args:
        explanation: What to show.

    Returns:
        HTML that refers to nothing outside itself.
    """
    maps = {
        "weighted": _entries(explanation.weighted),
        "attention": _entries(explanation.attention),
        "image": {"map": data_uri(coloured(relative(explanation.rollout)))},
    }
    strongest = int(strengths(explanation.weighted).argmax())
    scan = data_uri(as_8bit(explanation.image))
    content = json.dumps(maps).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Where the model looks, word by word</title>
<style>{STYLE}</style>
</head>
<body data-start="{strongest}">
<h1>Where the model looks, word by word</h1>
<p class="lead">Point at a word, or move to it with the tabulator key, to see its map; a click or
the space bar keeps it. {html.escape(verdict(explanation))}</p>
<div class="scan"><img src="{scan}" alt="B-scan"><img id="map" alt=""></div>
<p id="status" role="status"></p>
<p class="report">{_report(explanation)}</p>
<fieldset><legend>Maps:</legend>
<label><input type="radio" name="kind" value="weighted" checked> gradient-weighted attention</label>
<label><input type="radio" name="kind" value="attention"> attention</label></fieldset>
<p class="report"><button type="button" data-word="image">whole image, without words</button></p>
<p class="notes">Each map is scaled by its own maximum; the shade behind a word says how strong its
map is beside the others. Maps have the resolution of the model's patches, smoothed. They show what
the model used, not where a lesion is, and are not meant for diagnosis.</p>
<script type="application/json" id="maps">{content}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _entries(maps: Array) -> list[dict[str, object]]:
    return [
        {"map": data_uri(coloured(values)), "strength": round(float(strength), 3)}
        for values, strength in zip(relative(maps), strengths(maps), strict=True)
    ]


def _report(explanation: Explanation) -> str:
    """Write the report with its words as buttons, and what was cut struck through."""
    number = {word: place for place, word in enumerate(explanation.words)}
    parts, end = [], 0
    for word in sorted([*explanation.words, *explanation.unread], key=lambda w: w.start):
        parts.append(html.escape(explanation.report[end : word.start]))
        text = html.escape(word.text)
        if word in number:
            parts.append(f'<button type="button" data-word="{number[word]}">{text}</button>')
        else:
            parts.append(f'<span class="unread" title="beyond the cut">{text}</span>')
        end = word.end
    return "".join(parts) + html.escape(explanation.report[end:])
