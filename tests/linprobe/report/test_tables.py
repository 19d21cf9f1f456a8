"""Tables in each medium: balanced, escaped, and with one width."""

import io
import re
from html.parser import HTMLParser

import numpy as np
from rich.console import Console

from linprobe.report import tables as lay
from linprobe.report.loading import load
from linprobe.report.summary import Score, summarise
from linprobe.report.tables import Bold, Line, Table
from tests.helpers.probing_runs import write_tree

TABLE = Table(
    title="Results",
    caption="50 % & more",
    columns=("Data set", "Base", "Change"),
    lines=[
        Line(("base/A_B → refined/A_B",), "heading"),
        Line(("a|b <i>_x_# [a]", Bold("1.00 ± 0.50"), "+1")),
        Line(("Mean", "1.00", "−1.00**"), "mean"),
    ],
    notes=["* p<0.05 of [all]"],
)


def test_latex_is_balanced_and_escaped():
    text = lay.render("tables.tex", tables=[TABLE, TABLE])
    begins, ends = re.findall(r"\\begin{(\w+)}", text), re.findall(r"\\end{(\w+)}", text)
    assert begins == ["table", "tabular"] * 2 and ends == ["tabular", "table"] * 2
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    body = text.split("\n", 1)[1]  # after the comment that names the package
    for special in "_#%":
        assert not re.search(rf"(?<!\\){special}", body)
    rows = re.findall(r"^(.*) \\\\$", text, re.MULTILINE)
    widths = {len(re.findall(r"(?<!\\)&", row)) for row in rows if "multicolumn" not in row}
    assert widths == {2}
    assert r"\textbf{1.00 $\pm$ 0.50}" in text
    assert r"$-$1.00$^{*}$$^{*}$" in text


def test_latex_escapes_every_command_character():
    assert lay.escape_latex(r"\~^{}$&%#_") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\{\}\$\&\%\#\_"
    )


def test_markdown_has_one_width_and_escapes():
    lines = [
        line
        for line in lay.render("tables.md", tables=[TABLE]).splitlines()
        if line.startswith("|")
    ]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert r"| a\|b \<i\>\_x\_# \[a\] | **1.00 ± 0.50** | +1 |" in lines
    assert r"| Mean | 1.00 | −1.00\*\* |" in lines


def test_the_terminal_reads_no_markup():
    stream = io.StringIO()
    Console(file=stream, width=90, force_terminal=True).print(lay.render_terminal(TABLE))
    text = stream.getvalue()
    assert "\x1b[1m1.00 ± 0.50" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for expected in ("a|b <i>_x_# [a]", "−1.00**", "base/A_B → refined/A_B"):
        assert expected in plain


class Tags(HTMLParser):
    """Checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_well_formed_and_escaped():
    page = lay.templates().get_template("page.html").render(
        title="a < b", lead="", warnings=["<b>"], cards=[], tables=[TABLE], pictures=[],
        class_tables=[TABLE], methods="c < d", provenance=[("m", [("k", "<v>")])],
    )  # fmt: skip
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    for expected in ("a &lt; b", "a|b &lt;i&gt;_x_#", "<td><strong>1.00 ± 0.50</strong></td>"):
        assert expected in page
    assert "<b>" not in page.split("<body>")[1].split("<h2>")[0].replace("&lt;b&gt;", "")


def test_a_figure_of_a_columns_width_fits_a_telephone():
    """Wide ones are moved sideways there, and only these."""
    about = {"title": "t", "caption": "c", "data": "", "after": ""}
    page = lay.templates().get_template("page.html").render(
        title="", lead="", warnings=[], cards=[], tables=[], class_tables=[], methods="",
        provenance=[], pictures=[{**about, "width": 402}, {**about, "width": 900}],
    )  # fmt: skip
    assert page.count('<img class="page" alt="t. c" width="900"') == 1
    assert page.count('<img alt="t. c" width="402"') == 1
    assert "figure img.page { max-width: 40rem; }" in page


def test_numbers_as_text():
    assert [lay.number(v, sign=True) for v in (1.234, -0.5, 0.001, -0.001)] == [
        "+1.23",
        "−0.50",
        "0.00",
        "0.00",
    ]
    assert [lay.p_text(p) for p in (0.0625, 5.7e-6, float("nan"))] == ["0.0625", "5.7e−06", "–"]
    assert lay.interval_text((-1.0, 2.0)) == "−1.00 to +2.00"
    assert lay.interval_text(None) == "–"
    assert lay.with_spread(-0.001, 0.004) == "0.00 ± 0.00"
    assert lay.with_interval(-0.0154, (-0.0249, -0.003), True, 3) == "−0.015 (−0.025 to −0.003)"


def test_what_looks_alike_is_bold_alike(tmp_path):
    write_tree(tmp_path, n=30, data_sets=("OCTID",))
    pair = ("baseline/RETFound", "refined/RETFound")
    numbers = {"scales": {}, "resamples": 20, "swaps": 9, "seed": 0}
    summary = summarise(load(tmp_path, [], [pair]), "balanced_accuracy", **numbers)
    for k, model in enumerate(pair):
        summary.scores[model, "OCTID"] = Score(np.array([70.001 + 0.001 * k]), None)
    [_, line] = lay.main_table(summary, {}).lines
    assert [isinstance(cell, lay.Bold) for cell in line.cells[2:4]] == [True, True]


def test_the_main_table_says_what_it_cannot_bear(tmp_path):
    write_tree(tmp_path, n=30)
    pair = ("baseline/RETFound", "refined/RETFound")
    numbers = {"scales": {}, "resamples": 50, "swaps": 19, "seed": 0}
    summary = summarise(load(tmp_path, [], [pair]), "balanced_accuracy", **numbers)
    table = lay.main_table(summary, {"OCTID": " [a]"})
    assert [line.cells[0] for line in table.lines] == [
        "baseline/RETFound → refined/RETFound", "Duke_iAMD", "OCTID [a]", "Mean"
    ]  # fmt: skip
    assert len({len(line.cells) for line in table.lines[1:]} | {len(table.columns)}) == 1
    assert any("Wilcoxon" in note and "no star" in note for note in table.notes)
    told = " ".join(lay.warnings(summary))
    assert "at least 6 are needed" in told
    assert "OCTID (" in told  # thirty images of five classes
