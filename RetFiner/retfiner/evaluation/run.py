"""An evaluation from settings to a table and a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retfiner.common.cli import as_plain
from retfiner.common.files import write_text
from retfiner.data.table import read_table
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.folders import read_labelled
from retfiner.evaluation.tables import (
    console,
    findings_table,
    report_table,
    retrieval_table,
    zero_shot_table,
)
from retfiner.text.folder import require_tokenizer
from retfiner.vision.checkpoint_file import checkpoint_of

if TYPE_CHECKING:
    from retfiner.evaluation.models import Evaluated

say = print


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate a refined model, show the numbers, and write what was asked for.

    Args:
        config: The settings.

    Returns:
        All numbers in plain data, as ``--output`` writes them.

    Raises:
        InputError: If anything the user gave cannot be used.
    """
    require_paths(config)
    from transformers.utils import logging as transformers_logging

    from retfiner.evaluation.models import open_model

    transformers_logging.disable_progress_bar()
    evaluated = open_model(config)
    say(f"Model:          {config.model}, on {evaluated.device}, {evaluated.precision}")
    numbers = TASKS[config.task](config, evaluated)
    for note in numbers["notes"]:
        say(f"Note:           {note}")
    about = {
        "settings": as_plain(config),
        "model": dict(evaluated.loaded.description.get("provenance", {})),
    }
    if config.output is not None:
        text = json.dumps({**about, **numbers}, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(config.output, text + "\n")
        say(f"Numbers:        {config.output}")
    return numbers


def require_paths(config: EvaluateConfig) -> None:
    """Check that what the settings name is there, before torch is imported.

    Args:
        config: The settings.

    Raises:
        InputError: If the model, the data or a column is not there.
    """
    checkpoint_of(config.model)
    if config.text_encoder is not None:
        require_tokenizer(config.text_encoder)
    if config.task == "zero_shot":
        read_labelled(config.data, config.split)
        return
    given = (config.image_column, config.report_column, config.patient_column, config.slice_column)
    read_table(config.data, [name for name in given if name not in (None, "none")])


def _patients(numbers: dict[str, Any]) -> str:
    return "" if numbers["patients"] is None else f" of {numbers['patients']} patients"


def _say_left_out(numbers: dict[str, Any]) -> None:
    if numbers["left_out"]:
        say(f"                {numbers['left_out']} rows left out because they cannot be used")


def _retrieval(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    from retfiner.evaluation.retrieval import evaluate_retrieval

    numbers = evaluate_retrieval(config, evaluated)
    say(
        f"Pairs:          {numbers['pairs']}{_patients(numbers)} ({numbers['part']}), "
        f"{numbers['distinct_reports']} distinct reports"
    )
    _say_left_out(numbers)
    console().print(retrieval_table(numbers["retrieval"], numbers["rerank_top"]))
    if config.save is not None:
        say(f"Rankings:       {config.save}")
    return numbers


def _zero_shot(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    from retfiner.evaluation.zero_shot import evaluate_zero_shot

    numbers = evaluate_zero_shot(config, evaluated)
    split = f", {numbers['split']}" if numbers["split"] is not None else ""
    say(f"Images:         {numbers['images']}{_patients(numbers)} ({numbers['data_set']}{split})")
    say(f"Descriptions:   {numbers['prompts']}")
    console().print(zero_shot_table(numbers["metrics"]))
    say(f"Results:        {numbers['folder']}")
    return numbers


def _report(config: EvaluateConfig, evaluated: Evaluated) -> dict[str, Any]:
    from retfiner.evaluation.reports import evaluate_reports

    numbers = evaluate_reports(config, evaluated)
    say(
        f"Reports:        {numbers['pairs']}{_patients(numbers)} ({numbers['part']}), "
        f"{numbers['distinct_written']} different ones written; research output, not a diagnosis"
    )
    _say_left_out(numbers)
    kinds = ("scores", "scores_of_other_images", "scores_of_commonest_report")
    console().print(report_table([numbers[kind] for kind in kinds]))
    say(f"Commonest:      {numbers['commonest_report']}")
    console().print(findings_table(numbers["scores"]["findings"]))
    if config.page is not None:
        say(f"Page:           {config.page}")
    return numbers


TASKS = {"retrieval": _retrieval, "zero_shot": _zero_shot, "report": _report}
