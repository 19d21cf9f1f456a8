"""The models to be probed, and what identifies their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from linprobe.config import ProbeConfig
from retfiner.common.errors import InputError, shorten
from retfiner.common.files import file_sha256
from retfiner.vision import Backbone, load_backbone

SAME_WEIGHTS = (
    "--ft_weights holds the very weights of --init_weights: what is called refined here is the "
    "base model."
)


@dataclass(frozen=True)
class ProbedModel:
    """A loaded backbone.

    Attributes:
        backbone: The encoder.
        sha256: SHA-256 of the file its weights come from.
        context: Where they come from, for the record.
        remarks: What is odd about them.
    """

    backbone: Backbone
    sha256: str
    context: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What training and extraction wrote into the weights for a reader of their results."""
        about = self.context.get("provenance", {})
        notes = [*self.backbone.notes, *self.remarks]
        notes += [str(note) for note in about.get("notes", [])]
        guard = about.get("guard")
        needed = {"base", "refined", "low", "high", "patients"}
        if isinstance(guard, dict) and needed <= guard.keys():
            notes.append(
                "the guard of its refinement found an agreement of neighbours' reports of "
                f"{guard['refined']:.3f}, the base's {guard['base']:.3f} (interval of the change "
                f"{guard['low']:+.3f} to {guard['high']:+.3f}, {guard['patients']:.0f} validation "
                "patients)."
            )
        return notes


class Candidate(NamedTuple):
    """A model that was asked for: its name (None for the usual one) and its checkpoints."""

    name: str | None
    base: Path
    refined: Path | None = None


def candidates(config: ProbeConfig) -> list[Candidate]:
    """List the models that settings ask for, in their order."""
    if config.init_weights is not None:
        return [Candidate(None, config.init_weights, config.ft_weights)]
    words = (word.partition("=") for word in config.weights)
    return [Candidate(name, Path(path)) for name, _, path in words]


def load_model(
    init_weights: Path,
    ft_weights: Path | None,
    backbone: str = "auto",
    image_size: int | None = None,
    num_heads: int | None = None,
) -> ProbedModel:
    """Load the refined model or, where there is none, the base model.

    The refined model must be of the base model's backbone and of the same shapes: else the two
    are not what a comparison would claim them to be. Arguments are the flags of the same names.

    Raises:
        InputError: If a checkpoint cannot be read or fits no backbone, or the two do not belong
            together.
    """
    base = load_backbone(init_weights, backbone, image_size, num_heads)
    base_sha256 = file_sha256(init_weights)
    if ft_weights is None:
        context = {"weights": str(init_weights), "provenance": base.provenance}
        return ProbedModel(base, base_sha256, context)
    refined = load_backbone(ft_weights, base.spec.name, image_size, num_heads or base.num_heads)
    _check_same_kind(base, refined, init_weights, ft_weights)
    sha256, theirs = file_sha256(ft_weights), refined.encoder.state_dict()
    same = all(v.equal(theirs[key]) for key, v in base.encoder.state_dict().items())
    context = {
        "weights": str(ft_weights),
        "base_weights": str(init_weights),
        "base_weights_sha256": base_sha256,
        "provenance": refined.provenance,
    }
    return ProbedModel(refined, sha256, context, (SAME_WEIGHTS,) if same else ())


def _check_same_kind(base: Backbone, refined: Backbone, init: Path, ft: Path) -> None:
    theirs = {"image_size": refined.image_size, **_shapes(refined)}
    ours = {"image_size": base.image_size, **_shapes(base)}
    differing = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
    if differing:
        raise InputError(
            f"{ft.name} was not refined from a model like {init.name}",
            got=shorten([f"{k} {theirs.get(k, 'absent')}" for k in differing], 3),
            expected=shorten([f"{k} {ours.get(k, 'absent')}" for k in differing], 3),
            remedy="give the base model it was refined from; where only the image size differs, "
            "--image_size sets it for both",
        )


def _shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in backbone.encoder.state_dict().items()}
