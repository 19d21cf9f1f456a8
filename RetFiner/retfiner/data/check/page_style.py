"""How the page looks: a column of text, cards, plain tables, a grid of pairs."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: #fff;
  color: #1a1a1a;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; }
p { max-width: 46rem; margin: .5rem 0; }
.lead { color: #555; margin: 0 0 1.4rem; }
.cards { display: grid; gap: .8rem; padding: 0; margin: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.cards li { border: 1px solid #ddd; border-radius: 6px; padding: .8rem 1rem; }
.cards b { display: block; white-space: nowrap; font-size: 1.55rem;
  font-variant-numeric: tabular-nums; }
.cards span { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; min-width: 24rem; max-width: 100%; font-size: .93rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .36rem .7rem; text-align: left; vertical-align: top; font-weight: normal; }
th:first-child, td:first-child { padding-left: 0; }
thead th { border-bottom: 2px solid #1a1a1a; font-weight: 600; }
tbody tr + tr > * { border-top: 1px solid #eee; }
.number { text-align: right; white-space: nowrap; }
.nowrap { white-space: nowrap; }
.out { font-weight: 600; }
.note { color: #444; font-size: .9rem; }
.warn { border-left: 4px solid #D55E00; padding: .3rem 0 .3rem .9rem; }
svg { display: block; width: 100%; max-width: 46rem; height: auto; margin: .8rem 0; }
pre { background: #f4f4f4; border-radius: 6px; padding: .8rem 1rem; overflow-x: auto;
  font-size: .88rem; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere; }
.pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(18.5rem, 1fr)); }
.pairs figure { margin: 0; border: 1px solid #ddd; border-radius: 6px; overflow: hidden; }
.pairs .image { background: #000; height: 12rem; display: flex; align-items: center;
  justify-content: center; }
.pairs .image p { color: #fff; padding: 1rem; }
.pairs img { display: block; max-width: 100%; max-height: 100%; }
.pairs figcaption { padding: .6rem .8rem .7rem; font-size: .93rem; line-height: 1.45; }
.pairs small { display: block; color: #555; margin-top: .35rem; }
@media (max-width: 40rem) {
  table { min-width: 100%; }
  body { font-size: 15px; padding: 1rem .8rem 3rem; }
  th, td { padding: .3rem .45rem; }
}
@media print { svg, table, .pairs figure { break-inside: avoid; } }
"""
