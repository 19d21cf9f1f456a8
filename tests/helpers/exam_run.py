"""A small refinement on exams: what it wrote, its table, and its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retfiner.refine import refine
from tests.helpers.refinement import make_material, settings, write_csv, write_image


def report_of_exam(exam: int) -> str:
    return f"Finding number {exam % 7}. Fluid nasal. Drusen temporal, scan {exam}."


def images_of_exam(table: Path, exam: int) -> list[Path]:
    return [table.parent / "exams" / f"{exam}_{number}.png" for number in range(1 + exam % 4)]


def refine_exams(folder: Path) -> tuple[Any, Path, Any]:
    """Refine on 16 exams of 1 to 4 images, at their sentences and at most 3 slices."""
    material = make_material(folder)
    rows = []
    for exam in range(16):
        for number in range(1 + exam % 4):
            name = f"exams/{exam}_{number}.png"
            write_image(folder / name, 100 * exam + number)
            report = report_of_exam(exam) if number == 0 else ""
            rows.append([name, report, f"p{exam % 8}", f"v{exam}", "OD"])
    table = write_csv(folder / "t.csv", rows, ("image", "report", "patient_id", "visit", "eye"))
    config = settings(
        material, folder / "models", train_csv=table, group_column="visit", slices="random",
        max_slices=3, report_part="random_sentences", max_text_tokens=14, augment=True,
        batch_size=4, val_fraction=0.3,
    )  # fmt: skip
    return refine(config), table, config
