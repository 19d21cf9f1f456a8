"""An evaluation from settings to a table and a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retfiner.common.cli import as_plain
from retfiner.common.files import write_text
from retfiner.data.table import read_table
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.tables import (
    console,
    findings_table,
    report_table,
    retrieval_table,
    zero_shot_table,
)
from retfiner.evaluation.zero_shot.image_folder import read_image_folder
from retfiner.text.folder import require_tokenizer
from retfiner.vision.sniff import checkpoint_of

if TYPE_CHECKING:
    from retfiner.export.loading import LoadedModel


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
    # These need torch, which a wrong path does not wait for.
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
    about = {
        "settings": as_plain(config),
        "model": dict(loaded.description.get("provenance", {})),
    }
    if config.output is not None:
        text = json.dumps({**about, **numbers}, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(config.output, text + "\n")
        print(f"Numbers:        {config.output}")
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
        read_image_folder(config.data, config.split)
        return
    given = (config.image_column, config.report_column, config.patient_column, config.slice_column)
    read_table(config.data, [name for name in given if name not in (None, "none")])


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
    console().print(retrieval_table(numbers["retrieval"], numbers["rerank_top"]))
    if config.save is not None:
        print(f"Rankings:       {config.save}")
    return numbers


def _zero_shot(config: EvaluateConfig, loaded: LoadedModel) -> dict[str, Any]:
    from retfiner.evaluation.zero_shot.evaluate import evaluate_zero_shot

    numbers = evaluate_zero_shot(config, loaded)
    split = f", {numbers['split']}" if numbers["split"] is not None else ""
    print(f"Images:         {numbers['images']}{_patients(numbers)} ({numbers['data_set']}{split})")
    print(f"Descriptions:   {numbers['prompts']}")
    console().print(zero_shot_table(numbers["metrics"]))
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
    console().print(report_table([numbers[kind] for kind in kinds]))
    print(f"Commonest:      {numbers['commonest_report']}")
    console().print(findings_table(numbers["scores"]["findings"]))
    if config.page is not None:
        print(f"Page:           {config.page}")
    return numbers


TASKS = {"retrieval": _retrieval, "zero_shot": _zero_shot, "report": _report}
