"""Labelled scans for four probing tasks, true by construction.

A label says which recipe drew the eye; findings that do not bear on the label may accompany any
class, as they do in clinics.
"""

from __future__ import annotations

from retfiner.data.phantoms.cohort import (
    SIDES,
    Generator,
    Recipe,
    add_comorbidity,
    healthy,
    macular_hole,
    neovascular,
    progress,
    recipe_of,
    stream,
)
from retfiner.data.phantoms.scene import Anatomy, Kind, Scan

_TASK = 1  # purpose of the tasks' random streams

# Probing tasks: class -> recipe, and the findings that may accompany any class.
TASKS: dict[str, tuple[dict[str, Recipe], tuple[Kind, ...]]] = {
    "AMD_stage": (
        {
            "normal": healthy,
            "early_intermediate": recipe_of("drusen"),
            "geographic_atrophy": recipe_of("geographic_atrophy", ("drusen", 0.4)),
            "neovascular": neovascular,
        },
        ("epiretinal_membrane", "rnfl_thinning"),
    ),
    "Fluid_type": (
        {
            "none": healthy,
            "intraretinal": recipe_of("intraretinal_fluid"),
            "subretinal": recipe_of("subretinal_fluid"),
            "pigment_epithelial_detachment": recipe_of("pigment_epithelial_detachment"),
        },
        ("drusen", "epiretinal_membrane", "rnfl_thinning"),
    ),
    "Glaucoma": (
        {"healthy": healthy, "glaucoma": recipe_of("rnfl_thinning")},
        ("drusen", "epiretinal_membrane"),
    ),
    "Vitreomacular_interface": (
        {
            "normal": healthy,
            "epiretinal_membrane": recipe_of("epiretinal_membrane"),
            "traction": recipe_of("vitreomacular_traction"),
            "macular_hole": macular_hole,
        },
        ("drusen", "intraretinal_fluid", "rnfl_thinning"),
    ),
}


def make_task(task: str, n_images: int, seed: int, split: int = 0) -> list[tuple[str, Scan]]:
    """Draw class names and scans of one split of a probing task, its classes equally frequent.

    The patients of different splits never overlap.
    """
    recipes, company = TASKS[task]
    prefix = f"T{task[0]}{split}"
    labelled: list[tuple[str, Scan]] = []
    number = 0
    for order, (label, recipe) in enumerate(recipes.items()):
        wanted = n_images // len(recipes) + (order < n_images % len(recipes))
        found: list[tuple[str, Scan]] = []
        while len(found) < wanted:
            number += 1
            generator = stream(seed, _TASK, list(TASKS).index(task), split, number)
            scans = _task_patient(f"{prefix}{number:04d}", recipe, company, generator)
            found += [(label, scan) for scan in scans]
        labelled += found[:wanted]
    return labelled


def _task_patient(
    patient_id: str, recipe: Recipe, company: tuple[Kind, ...], generator: Generator
) -> list[Scan]:
    """Draw one to three scans of a patient whose eyes all belong to the same class."""
    first = int(generator.integers(2))
    scans = []
    for eye in (SIDES[first], SIDES[1 - first])[: int(generator.integers(1, 3))]:
        anatomy = Anatomy.sample(generator)
        findings = add_comorbidity(recipe(generator), company, generator, 0.25)
        scans.append(Scan(patient_id, eye, 1, anatomy, findings))
        if generator.random() < 0.3:
            later, _ = progress(findings, generator, may_resolve=False)
            scans.append(Scan(patient_id, eye, 2, anatomy, later))
    return scans
