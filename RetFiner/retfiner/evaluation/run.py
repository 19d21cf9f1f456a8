"""An evaluation from settings to a file and to the terminal's tables.

Every number stands there with its interval and with chance beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from retfiner.common.cli import as_plain
from retfiner.common.console import wide_console
from retfiner.common.faults import EVALUATION_MEMORY, explained_faults
from retfiner.common.files import write_text
from retfiner.common.metrics import METRICS
from retfiner.common.progress import LOADING, progress
from retfiner.data.table_file import read_early
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.zero_shot.image_folder import read_image_folder
from retfiner.text.folder import require_tokenizer
from retfiner.vision.images.remote import local_copy, local_path
from retfiner.vision.sniff import checkpoint_of

if TYPE_CHECKING:
    from retfiner.export.loading import LoadedModel

WIDTH = 110
"""Letters of a line in a log file."""
NAMES = {"map": "mAP", "median_rank": "median rank"}
TITLES = {"image_to_text": "Image to report", "text_to_image": "Report to image"}


@explained_faults(memory=EVALUATION_MEMORY)
def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a refined model, show the numbers, and write what was asked for.

    Returns:
        All numbers in plain data, as ``--output`` writes them.

    Raises:
        InputError: If anything the user gave cannot be used.
    """
    require_paths(config)
    # These need torch, which a wrong path does not wait for.
    with progress(LOADING):
        from transformers.utils import logging as transformers_logging

        from retfiner.common.devices import resolve_device
        from retfiner.export.loading import read_model
        from retfiner.training.precision import resolve_precision

    transformers_logging.disable_progress_bar()
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device.type)
    loaded = read_model(config.model, device, config.text_encoder, precision)
    print(f"Model:          {config.model}, on {device}, {precision}")
    numbers = TASKS[config.task](config, loaded)
    for note in numbers["notes"]:
        print(f"Note:           {note}")
    if config.output is not None:
        provenance = dict(loaded.description.get("provenance", {}))
        content = {"settings": as_plain(config), "model": provenance, **numbers}
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(config.output, text + "\n")
        print(f"Numbers:        {config.output}")
    return numbers


def require_paths(config: EvaluateConfig) -> None:
    """Check that what the settings name is there, before torch is imported.

    Raises:
        InputError: If the model, the data or a column is not there.
    """
    checkpoint_of(config.model)
    if config.text_encoder is not None:
        require_tokenizer(config.text_encoder)
    if config.task == "zero_shot":
        read_image_folder(config.data, config.split)
        return
    given = (config.image_column, config.report_column, config.patient_column, config.slice_column,
             config.group_column)  # fmt: skip
    with local_copy(local_path(config.data)) as table:
        read_early(table, [name for name in given if name not in (None, "none")])


def _patients(numbers: dict[str, Any]) -> str:
    return "" if numbers["patients"] is None else f" of {numbers['patients']} patients"


def _print_left_out(numbers: dict[str, Any]) -> None:
    if numbers["left_out"]:
        print(f"                {numbers['left_out']} rows left out because they cannot be used")


def _retrieval(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    from retfiner.evaluation.retrieval.evaluate import evaluate_retrieval

    numbers = evaluate_retrieval(config, loaded)
    print(
        f"Pairs:          {numbers['pairs']}{_patients(numbers)} ({numbers['part']}), "
        f"{numbers['distinct_reports']} distinct reports"
    )
    _print_left_out(numbers)
    wide_console(WIDTH).print(_retrieval_table(numbers["retrieval"], numbers["rerank_top"]))
    if config.save is not None:
        print(f"Rankings:       {config.save}")
    return numbers


def _zero_shot(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    from retfiner.evaluation.zero_shot.evaluate import evaluate_zero_shot

    numbers = evaluate_zero_shot(config, loaded)
    split = f", {numbers['split']}" if numbers["split"] is not None else ""
    print(f"Images:         {numbers['images']}{_patients(numbers)} ({numbers['data_set']}{split})")
    print(f"Descriptions:   {numbers['prompts']}")
    wide_console(WIDTH).print(_zero_shot_table(numbers["metrics"]))
    print(f"Results:        {numbers['folder']}")
    return numbers


def _report(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    from retfiner.evaluation.reports.evaluate import evaluate_reports

    numbers = evaluate_reports(config, loaded)
    print(
        f"Reports:        {numbers['pairs']}{_patients(numbers)} ({numbers['part']}), "
        f"{numbers['distinct_written']} different ones written; research output, not a diagnosis"
    )
    _print_left_out(numbers)
    kinds = ("scores", "scores_of_other_images", "scores_of_commonest_report")
    wide_console(WIDTH).print(_report_table([numbers[kind] for kind in kinds]))
    print(f"Commonest:      {numbers['commonest_report']}")
    if numbers["scores"]["findings"]:
        wide_console(WIDTH).print(_findings_table(numbers["scores"]["findings"]))
    if config.page is not None:
        print(f"Page:           {config.page}")
    return numbers


def _number(metric: str, value: float | None) -> str:
    """Write a share in percent, a rank and a loss as they are."""
    if value is None:
        return "–"
    if metric == "median_rank":
        return f"{value:.1f}"
    plain = metric in METRICS and METRICS[metric].scale == 1
    return f"{value:.3f}" if plain else f"{100 * value:.1f}"


def _with_interval(metric: str, entry: Mapping[str, Any]) -> str:
    """Write a number and, where there is one, its interval."""
    text = _number(metric, entry["value"])
    interval = entry.get("interval")
    if interval is None:
        return text
    return f"{text} [{_number(metric, interval[0])}, {_number(metric, interval[1])}]"


def _table(title: str, *columns: str) -> Table:
    table = Table("", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _retrieval_table(numbers: Mapping[str, Mapping[str, Any]], top: int) -> Table:
    """Lay out a retrieval: cosine alone, re-ranked, chance."""
    reranked = [f"first {top} re-ranked (ITM)"] if "itm" in numbers else []
    title = "Retrieval (%, 95 % intervals by patient)"
    table = _table(title, "contrast (ITC)", *reranked, "chance")
    for direction, heading in TITLES.items():
        table.add_row(f"[bold]{heading}")
        for metric in numbers["itc"][direction]:
            entries = [numbers[kind][direction][metric] for kind in numbers]
            table.add_row(
                f"  {NAMES.get(metric, metric)}",
                *(_with_interval(metric, entry) for entry in entries),
                _number(metric, entries[0]["chance"]),
            )
    return table


def _zero_shot_table(metrics: Mapping[str, Any]) -> Table:
    """Lay out a classification: each metric with its interval and chance, then each recall."""
    table = _table("Zero-shot classification (%)", "value", "chance")
    for name, value in metrics["values"].items():
        entry = {"value": value, "interval": metrics["intervals"].get(name)}
        table.add_row(
            METRICS[name].label,
            _with_interval(name, entry),
            _number(name, metrics["chance"].get(name)),
        )
    table.add_section()
    for name, recall in metrics["recall"].items():
        support = metrics["support"][name]
        table.add_row(f"recall of {name} ({support} images)", _number("recall", recall), "")
    return table


def _report_table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out how close reports are: as written, given to other images, and one for all images."""
    names = {
        "micro_f1": "F1 of the findings, micro",
        "macro_f1": "F1 of the findings, macro",
        "same_findings": "exactly the same findings",
        **{f"bleu_{n}": f"BLEU-{n}" for n in (1, 2, 3, 4)},
        "rouge_l": "ROUGE-L",
        "meteor_exact_stem": "METEOR (words and stems)",
    }
    table = _table("Written reports (%)", "written", "for other images", "the commonest for all")
    for key, name in names.items():
        table.add_row(name, *(_number(key, each[key]) for each in scores))
    return table


def _findings_table(findings: Mapping[str, Mapping[str, Any]]) -> Table:
    """Lay out each finding that some true report states."""
    table = _table("Findings (%)", "precision", "recall", "F1", "true reports")
    for name, entry in findings.items():
        if entry["support"]:
            cells = [_number(key, entry[key]) for key in ("precision", "recall", "f1")]
            table.add_row(name.replace("_", " "), *cells, str(entry["support"]))
    return table


TASKS = {"retrieval": _retrieval, "zero_shot": _zero_shot, "report": _report}
