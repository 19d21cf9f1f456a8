"""One table in every medium, with names that try to break each."""

import csv
import io
import re
from html.parser import HTMLParser

from rich.console import Console
from tests.helpers.probing_runs import write_tree

from linprobe.report.comparison import load_pairs
from linprobe.report.render import (
    LATEX_DOCUMENT,
    escape_latex,
    render_html,
    render_latex,
    render_markdown,
    render_terminal,
)
from linprobe.report.spreadsheets import rows_csv, runs_csv
from linprobe.report.summary import summarise
from linprobe.report.tables import Cell, Line, Table
from retfiner.common.results import METRIC_INFO

TABLE = Table(
    caption="50 % & more",
    columns=("Data set", "Base", "Change"),
    lines=[
        Line((Cell("A_B: base/A_B → refined/A_B"),), "heading"),
        Line(
            (Cell("a|b <i>_x_#"), Cell("1.00 ± 0.50", bold=True, underline=True), Cell("+1")),
            "body",
        ),
        Line((Cell("Mean"), Cell("1.00"), Cell("−1.00**")), "mean"),
    ],
    notes=["* p<0.05 of [all]"],
)


def test_latex_is_balanced_and_escaped():
    text = render_latex(TABLE)
    begins, ends = re.findall(r"\\begin{(\w+)}", text), re.findall(r"\\end{(\w+)}", text)
    assert begins == ends[::-1] == ["table", "tabular"]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    body = text.split("\n", 1)[1]  # after the comment that names the package
    for special in "_#%":
        assert not re.search(rf"(?<!\\){special}", body)
    rows = re.findall(r"^(.*) \\\\$", text, re.MULTILINE)
    widths = {len(re.findall(r"(?<!\\)&", row)) for row in rows if "multicolumn" not in row}
    assert widths == {2}
    assert r"\underline{\textbf{1.00 $\pm$ 0.50}}" in text
    assert r"$-$1.00$^{*}$$^{*}$" in text
    assert "±" not in text
    assert r"\input{table.tex}" in LATEX_DOCUMENT
    assert r"\usepackage{booktabs}" in LATEX_DOCUMENT


def test_latex_escapes_every_command_character():
    assert escape_latex(r"\~^{}$&%#_") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}\{\}\$\&\%\#\_"
    )


def test_markdown_has_one_width_and_escapes():
    lines = [line for line in render_markdown(TABLE).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert r"| a\|b \<i\>\_x\_\# | <u>**1.00 ± 0.50**</u> | +1 |" in lines
    assert r"| Mean | 1.00 | −1.00\*\* |" in lines


class Cells(HTMLParser):
    """Collects the cells of each row, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.rows = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_html_is_well_formed_and_escaped():
    parser = Cells()
    parser.feed(render_html(TABLE))
    assert parser.open == []
    assert parser.rows == [
        ["Data set", "Base", "Change"],
        ["A_B base/A_B → refined/A_B"],
        ["a|b <i>_x_#", "1.00 ± 0.50", "+1"],
        ["Mean", "1.00", "−1.00**"],
    ]
    assert "<td><u><strong>1.00 ± 0.50</strong></u></td>" in render_html(TABLE)


def test_terminal_shows_cells_and_notes_without_reading_markup():
    stream = io.StringIO()
    Console(file=stream, width=90, force_terminal=True).print(render_terminal(TABLE))
    text = stream.getvalue()
    assert "\x1b[1;4m1.00 ± 0.50" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for expected in ("a|b <i>_x_#", "−1.00**", "of [all]", "A_B is base/A_B → refined/A_B."):
        assert expected in plain


def test_csv_keeps_all_digits(tmp_path):
    write_tree(tmp_path, seeds=(0,), fractions=(1.0, 0.1), n=20)
    pairs = load_pairs(tmp_path, ["baseline/RETFound"], ["refined/RETFound"])
    rows, _ = summarise(pairs, "mcc")
    table = list(csv.DictReader(io.StringIO(rows_csv(rows))))
    assert [row["data_set"] for row in table] == ["Duke_iAMD", "OCTID", "Mean"]
    assert float(table[1]["change"]) == rows[1].change
    assert table[0]["base_std"] == table[0]["change_low"] == ""  # one seed has no spread

    runs = list(csv.DictReader(io.StringIO(runs_csv([*pairs, *pairs]))))
    assert len(runs) == 8  # two models, two data sets, two shares, though the pair stands twice
    assert {(run["model"], run["train_fraction"]) for run in runs} == {
        (model, share)
        for model in ("baseline/RETFound", "refined/RETFound")
        for share in ("1.0", "0.1")
    }
    base = pairs[0].main[("OCTID", 0)][0]
    (line,) = [
        run
        for run in runs
        if run["fingerprint"] == base.fingerprint[:12] and run["data_set"] == "OCTID"
    ]
    for name in METRIC_INFO:
        assert float(line[name]) == base.metrics["values"][name]
        interval = base.metrics["intervals"][name]
        found = [line[f"{name}_low"], line[f"{name}_high"]]
        assert found == (["", ""] if interval is None else [str(edge) for edge in interval])
