"""From a training checkpoint to the refined vision backbone alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.files import file_sha256, save_torch, whole_file, write_text
from retfiner.export.card import measured_change, model_card
from retfiner.export.config import ExtractConfig, Format
from retfiner.export.hf import hf_provenance, push_folder, save_hf
from retfiner.export.onnx import onnx_provenance, save_onnx
from retfiner.training.guard import encoder_advice
from retfiner.vision import (
    Backbone,
    BackboneSpec,
    RawCheckpoint,
    backbone_from_state,
    load_backbone,
    read_checkpoint,
    resolve_backbone,
    save_backbone,
)
from retfiner.vision.adaptation import merge_lora
from retfiner.vision.exams import POOLING_KEY

PREFIX = "model."
ENCODER = f"{PREFIX}vision_encoder."


@explained_faults()
def extract(config: ExtractConfig) -> Path:
    """Write the vision backbone of a checkpoint; return the file that was written.

    Raises:
        InputError: If there is no backbone in the checkpoint, or the output is of another run.
    """
    backbone = read_refined_backbone(config.path_to_model, config.backbone, config.image_size)
    output = config.output or config.default_output
    if config.push is not None:
        _require_sharing_allowed(backbone.spec)
    _check_output(output, backbone, config.format)
    _save(output, backbone, config.format)
    pooling = _write_pooling(config.path_to_model, output)
    print(f"Backbone:       {backbone.spec.name}, refined")
    print(f"Written to:     {output}")
    if pooling is not None:
        print(f"Exams:          {pooling} weighs the images of one")
    if (found := encoder_finding(backbone)) is not None:
        print(found)
    if backbone.spec.forbids_derivatives:
        print(f"Not to share:   {backbone.spec.licence} lets nobody pass on what is refined")
    if config.writes_card:
        _write_card(config, output, backbone)
    if config.push is not None:
        print(f"Uploaded to:    {push_folder(output, config.push)}")
    return output


def encoder_finding(backbone: Backbone) -> str | None:
    """Say what refinement found of this encoder; None for a file that no run of ours wrote."""
    about = backbone.provenance
    if "refined_by" not in about:
        return None
    change, found = measured_change(backbone), about.get("guard")
    if change is None or not isinstance(found, dict):
        return "Encoder:        no file says if it is better than its base; probe it before use"
    lines = [f"Encoder:        {change}", *encoder_advice(change)]
    if found.get("step") != about.get("step"):
        lines.insert(1, f"                as of step {found.get('step')}; it has gone on since")
    return "\n".join(lines)


def _require_sharing_allowed(spec: BackboneSpec) -> None:
    if spec.forbids_derivatives:
        raise InputError(
            f"a refined {spec.name} may not be shared: its licence forbids derivatives",
            got=f"--push, and weights under {spec.licence} ({spec.source})",
            expected="a base model whose licence lets refined weights be passed on",
            remedy="leave --push out, and keep the weights to yourself",
        )


def _save(output: Path, backbone: Backbone, format: Format) -> None:
    if format == "hf":
        save_hf(output, backbone)
    elif format == "onnx":
        save_onnx(output, backbone)
    else:
        save_backbone(output, backbone, format)


def _write_pooling(path: Path, output: Path) -> Path | None:
    """Write what weighs the images of an exam beside the backbone, where the run had exams."""
    state = read_checkpoint(path).content.get("state_dict")
    if not isinstance(state, Mapping) or f"{PREFIX}image_marks.weight" not in state:
        return None
    parts = ("vision_proj.", "image_marks.", "contra_pool.")
    held = {key.removeprefix(PREFIX): value for key, value in state.items()}
    kept = {key: value.clone() for key, value in held.items() if key.startswith(parts)}
    pooling = output.with_name(f"{output.stem}_exam.pth")
    with whole_file(pooling) as temporary:
        save_torch({POOLING_KEY: kept}, temporary)
    return pooling


def _write_card(config: ExtractConfig, output: Path, backbone: Backbone) -> None:
    about = read_checkpoint(config.path_to_model).metadata
    text = model_card(backbone, output, config.format, about, config.results)
    card = output / "README.md" if output.is_dir() else output.with_suffix(".md")
    write_text(card, text)
    print(f"Model card:     {card}")


def read_refined_backbone(
    path: Path, backbone: str = "auto", image_size: int | None = None
) -> Backbone:
    """Read the vision backbone of a refinement checkpoint, ours or a published ``RetFiner_*.pth``.

    Its name and the input's side in pixels are given where the checkpoint does not say.

    Raises:
        InputError: If the file cannot be read, or holds no vision encoder.
    """
    raw = read_checkpoint(path)
    if isinstance(raw.content.get("state_dict"), Mapping):
        refined = refined_backbone(raw, path, backbone, image_size)
        refined.provenance["source_sha256"] = file_sha256(path)
        return refined
    _require_refined(raw, path)
    released = load_backbone(path, backbone, image_size)
    released.provenance.setdefault("source_sha256", file_sha256(path))
    return released


def refined_backbone(
    raw: RawCheckpoint, path: Path, backbone: str = "auto", image_size: int | None = None
) -> Backbone:
    """Take the vision backbone out of the checkpoint of a run that was read already.

    Raises:
        InputError: If it holds no vision encoder.
    """
    encoder, own = _encoder_state(raw.content["state_dict"], path), raw.metadata
    if own.get("lora_scale") is not None:
        encoder = merge_lora(encoder, own["lora_scale"])
    spec = resolve_backbone(RawCheckpoint(encoder, own), path, backbone)
    size = own.get("image_size", image_size if image_size is not None else spec.image_size)
    if image_size is not None and image_size != size:
        raise InputError(
            "the checkpoint says it was refined at another image size",
            got=f"--image_size {image_size}",
            expected=size,
            remedy="leave --image_size out",
        )
    refined = backbone_from_state(spec.name, encoder, size, own.get("num_heads"))
    progress = {
        "epoch": raw.content.get("epoch"),
        "epochs_done": _epochs_done(raw.content),
        "step": raw.content.get("global_step"),
    }
    refined.provenance = {
        **own.get("provenance", {}),
        **{name: done for name, done in progress.items() if isinstance(done, int)},
        **({"guard": own["guard"]} if "guard" in own else {}),
        "run": path.resolve().parent.name,
    }
    return refined


def _epochs_done(content: Mapping[str, Any]) -> int | None:
    """Count the epochs whose steps are all done, in Lightning's terms; None if it does not say.

    Checkpoints that are not to go on from are written after an epoch's validation, before Lightning
    counts that epoch. The others may be from within one.
    """
    epoch = content.get("epoch")
    if "optimizer_states" not in content:
        return epoch + 1 if isinstance(epoch, int) else None
    try:
        loop = content["loops"]["fit_loop"]
        counted = loop["epoch_progress"]["current"]
        is_over = loop["epoch_loop.batch_progress"]["is_last_batch"]
        return int(counted["completed"]) + (counted["ready"] > counted["completed"] and is_over)
    except (KeyError, TypeError):  # of a code of somebody's own
        return None


def _require_refined(raw: RawCheckpoint, path: Path) -> None:
    """Refuse what is plainly a base model; released refined encoders are flat state dicts."""
    is_ours = bool(raw.metadata)
    is_refined = "refined_by" in raw.metadata.get("provenance", {})
    is_flat = any(isinstance(value, Tensor) for value in raw.content.values())
    if not (is_refined if is_ours else is_flat):
        raise InputError(
            f"{path} is no refined model",
            got=f"a file with {shorten(sorted(str(key) for key in raw.content))}",
            expected="best-model.ckpt as train.py writes it, or a released RetFiner file",
            remedy="a base model needs no extraction: probe it as it is",
        )


def _encoder_state(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the vision encoder's own keys of a training checkpoint.

    The published code keeps its projection to the text width and an unused classifier inside the
    ViT; the in-house masked autoencoder sits one level deeper. None of these is the encoder.
    """
    keys = {
        key.removeprefix(ENCODER): value for key, value in state.items() if key.startswith(ENCODER)
    }
    if not keys:
        raise InputError(
            f"{path} holds no refined vision encoder",
            got=shorten(sorted(state)),
            expected=f"keys that begin with {ENCODER}",
            remedy="give the best-model.ckpt that train.py wrote",
        )
    keys = {key.removeprefix("model."): value for key, value in keys.items()}
    return {key: value for key, value in keys.items() if not key.startswith(("proj.", "head."))}


def _check_output(output: Path, backbone: Backbone, format: str) -> None:
    """Refuse to overwrite the backbone of another run."""
    if not output.exists():
        return
    if format == "hf":
        found = hf_provenance(output)
    elif format == "onnx":
        found = onnx_provenance(output)
    else:
        found = read_checkpoint(output).metadata.get("provenance", {})
    key = "run_id" if "run_id" in backbone.provenance else "source_sha256"
    if found.get(key) != backbone.provenance[key]:
        raise InputError(
            f"{output} exists and is of another run",
            remedy="give another file with --output, or remove it first",
        )
