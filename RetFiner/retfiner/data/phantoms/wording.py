"""The clinic's vocabulary: how normal scans, findings, amounts and changes are worded."""

from __future__ import annotations

from retfiner.data.phantoms.scene import Kind

# Wording of normal scans with relative frequencies; the first is every clinic's favourite.
NORMAL: dict[str, float] = {
    "No obvious abnormality.": 37.0,
    "Normal macula, no intra- or subretinal fluid.": 9.0,
    "Normal foveal contour, no fluid, no drusen.": 8.0,
    "Macula dry, foveal contour preserved.": 7.0,
    "Retinal layers intact, no IRF or SRF.": 6.0,
    "Unremarkable OCT of the macula.": 6.0,
    "Normal OCT, RPE regular, no ERM or VMT.": 4.0,
    "No evidence of macular oedema or drusen. Foveal pit normal.": 4.0,
    "Regular retinal structure with normal foveal depression.": 4.0,
    "All retinal layers intact. Vitreomacular interface unremarkable.": 3.0,
    "No pathological findings in the macular scan.": 3.0,
    "Macula flat and dry, no PED, no fluid.": 3.0,
}
NORMAL_OPENINGS = (
    "Normal macular thickness and contour",
    "Foveal pit preserved, layers well delineated",
    "No abnormality detected",
    "Inner and outer retinal layers intact",
    "Ellipsoid zone and RPE continuous",
    "Regular foveal depression",
)

# One finding in few words: the whole report of a busy day, and often repeated.
BRIEF: dict[Kind, tuple[str, ...]] = {
    "drusen": ("Macular drusen, no fluid.", "Drusen, no IRF or SRF."),
    "geographic_atrophy": ("Geographic atrophy, no fluid.", "GA with loss of the RPE."),
    "intraretinal_fluid": ("Intraretinal fluid present.", "Cystic IRF, no SRF."),
    "subretinal_fluid": ("Subretinal fluid present.", "SRF, no IRF."),
    "pigment_epithelial_detachment": (
        "PED, no intra- or subretinal fluid.",
        "PED, macula otherwise dry.",
    ),
    "subretinal_hyperreflective_material": ("SHRM present, no fluid.",),
    "epiretinal_membrane": ("Epiretinal membrane, no oedema.", "ERM, no fluid."),
    "vitreomacular_traction": ("Vitreomacular traction at the fovea.", "VMT, no fluid."),
    "macular_hole": ("Full-thickness macular hole.", "FTMH, no SRF."),
    "rnfl_thinning": ("RNFL thinning, macula dry.", "Nerve fibre layer thinning, no fluid."),
}

# {q} amount, {p} place, {h} height in µm, {w} width in µm, {mm} width in mm, {s} subtype.
SENTENCES: dict[Kind, tuple[str, ...]] = {
    "drusen": (
        "{q} drusen {p}",
        "{q} soft drusen {p}, up to {h} µm high",
        "Drusen {p} with irregular RPE",
        "{q} drusenoid elevations of the RPE {p}",
        "{q} sub-RPE drusen {p}, tallest {h} µm",
    ),
    "geographic_atrophy": (
        "Geographic atrophy {p}, {mm} mm wide, with choroidal hypertransmission",
        "GA {p}, extent {mm} mm, ellipsoid zone and RPE lost",
        "{q} geographic atrophy {p}, increased signal from the choroid",
        "Complete RPE and outer retinal atrophy {p}, about {mm} mm",
    ),
    "intraretinal_fluid": (
        "{q} intraretinal fluid {p}",
        "{q} IRF {p}",
        "{q} intraretinal cysts {p}",
        "Cystoid macular oedema {p}, {q}",
        "{q} cystic IRF {p} with retinal thickening",
    ),
    "subretinal_fluid": (
        "{q} subretinal fluid {p}, {h} µm",
        "{q} SRF {p}",
        "SRF {p}, height {h} µm",
        "{q} neurosensory detachment {p}",
        "{q} pocket of subretinal fluid {p}",
    ),
    "pigment_epithelial_detachment": (
        "{s} PED {p}, {h} µm high",
        "{q} {s} pigment epithelial detachment {p}",
        "{s} PED {p}, height {h} µm, width {w} µm",
        "{q} {s} PED {p}",
    ),
    "subretinal_hyperreflective_material": (
        "{q} subretinal hyperreflective material {p}",
        "SHRM {p}, {h} µm thick",
        "{q} SHRM {p} with disrupted ellipsoid zone",
    ),
    "epiretinal_membrane": (
        "{q} epiretinal membrane {c}",
        "{q} ERM {c}",
        "ERM {c}, {q}",
        "{q} epiretinal gliosis {c}",
    ),
    "vitreomacular_traction": (
        "Vitreomacular traction, adhesion {w} µm wide",
        "VMT with {q} elevation of the fovea",
        "{q} vitreomacular traction, foveal contour distorted",
        "{q} VMT, hyaloid attached at the fovea over {w} µm",
    ),
    "macular_hole": (
        "Full-thickness macular hole, aperture {w} µm",
        "FTMH, minimum diameter {w} µm",
        "{g} full-thickness macular hole, {w} µm",
        "{g} FTMH with elevated edges",
    ),
    "rnfl_thinning": (
        "{q} RNFL thinning, {s}",
        "{q} {s} thinning of the nerve fibre and ganglion cell layers",
        "RNFL thinned, {s} and {q}, suspicious for glaucoma",
        "{q} {s} nerve fibre layer thinning, glaucomatous pattern",
    ),
}
SHORT: dict[Kind, str] = {
    "drusen": "drusen",
    "geographic_atrophy": "geographic atrophy",
    "intraretinal_fluid": "IRF",
    "subretinal_fluid": "SRF",
    "pigment_epithelial_detachment": "PED",
    "subretinal_hyperreflective_material": "SHRM",
    "epiretinal_membrane": "ERM",
    "vitreomacular_traction": "VMT",
    "macular_hole": "FTMH",
    "rnfl_thinning": "RNFL thinning",
}
# Wording of mild, moderate and advanced findings.
Amounts = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
USUAL_AMOUNTS: Amounts = (
    ("mild", "slight", "subtle", "minimal"),
    ("moderate",),
    ("marked", "pronounced", "extensive", "severe"),
)
AMOUNTS: dict[Kind, Amounts] = {
    "drusen": (("few small",), ("several",), ("multiple large", "numerous")),
    "pigment_epithelial_detachment": (
        ("shallow", "low"),
        ("medium-sized",),
        ("large", "prominent"),
    ),
}
# What a clinician reports first.
WEIGHT: dict[Kind, float] = {
    "macular_hole": 2.0,
    "vitreomacular_traction": 1.4,
    "subretinal_fluid": 1.3,
    "intraretinal_fluid": 1.3,
    "subretinal_hyperreflective_material": 1.2,
    "geographic_atrophy": 1.2,
    "pigment_epithelial_detachment": 1.1,
    "epiretinal_membrane": 0.8,
    "drusen": 0.7,
    "rnfl_thinning": 0.6,
}
TRENDS: dict[str, tuple[str, ...]] = {
    "smaller": (
        "reduced compared with the previous visit",
        "less than at the last visit",
        "improved since the previous scan",
    ),
    "larger": (
        "increased compared with the previous visit",
        "more than at the last visit",
        "progressive since the previous scan",
    ),
    "stable": ("unchanged from the previous visit", "stable"),
    "new": ("new since the last visit",),
}
FLUID: frozenset[Kind] = frozenset({"intraretinal_fluid", "subretinal_fluid"})
# What may be denied where all of it is absent; of fluid, the first phrase that fits.
DENIALS: tuple[tuple[frozenset[Kind], tuple[str, ...]], ...] = (
    (FLUID, ("no intra- or subretinal fluid", "no IRF or SRF", "no macular oedema")),
    (frozenset({"subretinal_fluid"}), ("no subretinal fluid", "no SRF")),
    (frozenset({"intraretinal_fluid"}), ("no intraretinal fluid", "no IRF")),
    (
        frozenset({"epiretinal_membrane", "vitreomacular_traction"}),
        ("no ERM or VMT", "no epiretinal membrane"),
    ),
    (frozenset({"pigment_epithelial_detachment"}), ("no PED",)),
    (frozenset({"drusen"}), ("no drusen",)),
    (frozenset({"geographic_atrophy"}), ("no geographic atrophy", "no outer retinal atrophy")),
    (frozenset({"macular_hole"}), ("no macular hole",)),
)
