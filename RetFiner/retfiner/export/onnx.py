"""A backbone as one ONNX file that runs without Python: images in, tokens and features out."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retfiner.common.errors import InputError
from retfiner.common.files import whole_file
from retfiner.vision import Backbone

OPSET = 18


class _Outputs(nn.Module):
    """Gives what users ask a backbone for: all tokens, and the features of linear probing."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.encoder = backbone.encoder
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.backbone.fusion_tokens(images), self.backbone.features(images)


def save_onnx(path: Path, backbone: Backbone) -> None:
    """Write a backbone as ONNX, whole or not at all.

    Input ``images`` (B, C, S, S), normalised; outputs ``tokens`` (B, T, D) as the text side saw
    them and ``features`` (B, F) as linear probing takes them. Mean, deviation and image size are
    in the model's metadata.

    Raises:
        InputError: If the packages for it are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter is built on it
    except ModuleNotFoundError as error:
        raise InputError(
            "--format onnx needs packages that are not installed",
            got=f"no module {error.name}",
            remedy="pip install onnx onnxscript onnxruntime",
        ) from error
    size, channels = backbone.image_size, backbone.spec.in_chans
    example = torch.zeros(2, channels, size, size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about its own internals
        program = torch.onnx.export(
            _Outputs(backbone).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["tokens", "features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
        )
    assert program is not None
    model = program.model_proto
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise RuntimeError(f"{backbone.spec.name} was exported for {batch.dim_value} images alone")
    about = {
        "backbone": backbone.spec.name,
        "image_size": str(size),
        "mean": json.dumps(list(backbone.spec.mean)),
        "std": json.dumps(list(backbone.spec.std)),
        "provenance": json.dumps(backbone.provenance),
    }
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    with whole_file(path) as temporary:
        onnx.save(model, str(temporary))


def onnx_provenance(path: Path) -> dict[str, Any]:
    """Say where the weights of a file written by :func:`save_onnx` come from; empty if unknown."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
        values = {entry.key: entry.value for entry in model.metadata_props}
        found = json.loads(values.get("provenance", "{}"))
    except (OSError, ValueError, RecursionError, DecodeError):
        return {}
    return found if isinstance(found, dict) else {}
