"""One table for a terminal, Markdown, LaTeX and HTML."""

from __future__ import annotations

import html

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from linprobe.report.tables import Cell, Table


def render_terminal(table: Table) -> Group:
    """Render for :meth:`rich.console.Console.print`."""
    grid = RichTable(box=box.SIMPLE_HEAD, title=table.caption, title_justify="left")
    for index, name in enumerate(table.columns):
        grid.add_column(name, justify="right" if index else "left", no_wrap=True)
    headings = []
    for line in table.lines:
        if line.kind == "heading":
            grid.add_section()
            name, _, models = line.cells[0].text.partition(": ")
            headings.append(f"{name} is {models}.")
            grid.add_row(Text(name, style="bold"))
            continue
        grid.add_row(*(_rich_text(cell) for cell in line.cells), end_section=line.kind == "mean")
    notes = [Text(f"{text}", style="dim") for text in [*headings, *table.notes]]
    return Group(grid, *notes)


def _rich_text(cell: Cell) -> Text:
    style = f"{'bold ' if cell.bold else ''}{'underline' if cell.underline else ''}".strip()
    return Text(cell.text, style=style or "none")


def render_markdown(table: Table) -> str:
    """Render as a Markdown table with its notes."""

    def cell(item: Cell) -> str:
        text = "".join(f"\\{c}" if c in r"\`*_|<>[]#" else c for c in item.text)
        text = f"**{text}**" if item.bold else text
        return f"<u>{text}</u>" if item.underline else text

    rows = ["| " + " | ".join(table.columns) + " |"]
    rows.append("|" + " --- |" + " ---: |" * (len(table.columns) - 1))
    for line in table.lines:
        if line.kind == "heading":
            heading = Cell(line.cells[0].text, bold=True)
            rows.append(f"| {cell(heading)} |" + " |" * (len(table.columns) - 1))
        else:
            rows.append("| " + " | ".join(map(cell, line.cells)) + " |")
    notes = [f"- {cell(Cell(note))}" for note in table.notes]
    return "\n".join([cell(Cell(table.caption)), "", *rows, "", *notes, ""])


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "→": r"$\rightarrow$",
    "*": r"$^{*}$",
}


def escape_latex(text: str) -> str:
    """Escape what LaTeX would read as a command; other letters are left to UTF-8."""
    return "".join(_LATEX.get(character, character) for character in text)


def render_latex(table: Table) -> str:
    r"""Render as a ``table`` environment to ``\input``; needs the package booktabs."""

    def cell(item: Cell) -> str:
        text = escape_latex(item.text)
        text = rf"\textbf{{{text}}}" if item.bold else text
        return rf"\underline{{{text}}}" if item.underline else text

    width = len(table.columns)
    body = []
    for index, line in enumerate(table.lines):
        if line.kind == "heading":
            body += [r"\midrule"] if index else []
            text = escape_latex(line.cells[0].text)
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{text}}}}} \\")
        else:
            body += [rf"\cmidrule{{1-{width}}}"] if line.kind == "mean" else []
            body.append(" & ".join(map(cell, line.cells)) + r" \\")
    heads = " & ".join(escape_latex(name) for name in table.columns)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\toprule",
            rf"{heads} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip\footnotesize\raggedright",
            *(escape_latex(note) + r"\par" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


LATEX_DOCUMENT = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
\input{table.tex}
\end{document}
"""


def render_html(table: Table) -> str:
    """Render as an HTML table; the caption and the notes are left to the page."""

    def cell(item: Cell, tag: str = "td") -> str:
        text = html.escape(item.text)
        text = f"<strong>{text}</strong>" if item.bold else text
        return f"<{tag}>{f'<u>{text}</u>' if item.underline else text}</{tag}>"

    rows = []
    for line in table.lines:
        if line.kind == "heading":
            name, _, models = line.cells[0].text.partition(": ")
            inner = f"{html.escape(name)} <span>{html.escape(models)}</span>"
            rows.append(
                f'<tr class="heading"><th colspan="{len(table.columns)}" scope="rowgroup">'
                f"{inner}</th></tr>"
            )
        else:
            cells = cell(line.cells[0], 'th scope="row"').replace('</th scope="row">', "</th>")
            cells += "".join(map(cell, line.cells[1:]))
            rows.append(f'<tr class="{line.kind}">{cells}</tr>')
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.columns)
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
    )
