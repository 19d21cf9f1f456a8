"""Text encoder folders from elsewhere: no code of theirs is run, no size of theirs believed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys

import pytest
import torch

from retfiner.data.pair_table import read_reports
from retfiner.text.build import TextEncoderConfig, build_text_encoder
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer, tokenizer_as_text, tokenizer_from_text
from tests.helpers.bounded import assert_refused, bounded
from tests.helpers.refinement import write_text_encoder
from tests.hostile.test_checkpoints import Runs


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("bert") / "sound")


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "folder")


def change_json(path, **changes):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


def write_code(folder, marker):
    """Write modules that leave a mark when they are imported."""
    for name in ("modeling_evil", "configuration_evil", "tokenization_evil", "bert", "__init__"):
        (folder / f"{name}.py").write_text(
            f"open({str(marker)!r}, 'w').close()\n"
            "from transformers import BertConfig, BertTokenizerFast\n"
            "class Evil(BertTokenizerFast): pass\nclass EvilConfig(BertConfig): pass\n"
        )


AUTO_MAP = {
    "AutoConfig": "configuration_evil.EvilConfig",
    "AutoModel": "modeling_evil.Evil",
    "AutoModelForMaskedLM": "modeling_evil.Evil",
    "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
}


@pytest.mark.parametrize("model_type", ["bert", "evil", None])
@pytest.mark.parametrize("answer", ["y\n", ""])
def test_custom_code_is_neither_run_nor_asked_about(
    folder, tmp_path, monkeypatch, model_type, answer
):
    """Also if somebody would answer yes: there is no question."""
    marker = tmp_path / "marker"
    write_code(folder, marker)
    change_json(folder / "config.json", auto_map=AUTO_MAP, model_type=model_type)
    change_json(folder / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="Evil")
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        for read in (load_text_encoder, load_tokenizer):
            outcome = bounded(lambda read=read: read(folder))
            assert outcome.kind in ("InputError", "returned"), outcome
            assert "[y/N]" not in outcome.text
    assert not marker.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_that_are_a_call(folder, tmp_path, legacy):
    marker = tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    call = Runs(os.system, f"touch {marker}")
    torch.save(
        {"bert.embeddings.word_embeddings.weight": call},
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=not legacy,
    )
    assert_refused(lambda: load_text_encoder(folder))
    build = TextEncoderConfig(source=str(folder), output=tmp_path / "built")
    assert_refused(lambda: build_text_encoder(build, read_reports))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(call))
    assert_refused(lambda: load_text_encoder(folder))
    assert not marker.exists()
    assert not (tmp_path / "built").exists()


CONFIGS = {
    "10^9 words": {"vocab_size": 10**9},
    "10^9 channels": {"hidden_size": 10**9},
    "10^6 layers": {"num_hidden_layers": 10**6},
    "no layer": {"num_hidden_layers": 0},
    "minus one layer": {"num_hidden_layers": -1},
    "positions": {"max_position_embeddings": 10**10},
    "no heads": {"num_attention_heads": 0},
    "heads that do not divide": {"num_attention_heads": 7},
    "text for a number": {"hidden_size": "__import__('os').system('true')"},
    "an activation that is code": {"hidden_act": "__import__('os').system('true')"},
    "an activation that is a list": {"hidden_act": [1]},
    "a dtype that is code": {"dtype": "os.system"},
    "an architecture that is code": {"architectures": ["os.system"]},
    "another type": {"model_type": ["bert"]},
    "attention that is fetched": {
        "attn_implementation": "evil/kernel",
        "_attn_implementation": "x/y",
    },
    "quantised by code": {"quantization_config": {"quant_method": "evil", "modules": "os"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_settings_that_cannot_be(folder, name):
    change_json(folder / "config.json", **CONFIGS[name])
    outcome = bounded(lambda: load_text_encoder(folder))
    assert outcome.kind in ("InputError", "returned"), outcome  # some are simply ignored
    assert outcome.megabytes < 300, outcome


FILES = {
    "config.json": ["[" * 100_000, "[]", "1", "\0", '{"model_type": "bert"', "", "\ud800"],
    "tokenizer.json": [
        "[" * 100_000,
        "[]",
        "1",
        "{}",
        '{"model": {"type": "WordPiece", "vocab": 1}}',
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}',
        "\0",
        "",
    ],
    "tokenizer_config.json": [
        "[" * 100_000,
        "[]",
        '{"tokenizer_class": "os.system"}',
        '{"tokenizer_class": 1}',
        '{"mask_token": 1}',
        '{"added_tokens_decoder": {"x": 1}}',
        '{"chat_template": "{{ cycler.__init__.__globals__.os.system(1) }}"}',
        "",
    ],
    "model.safetensors": ["", "\0" * 8, "\xff" * 64],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_of_a_folder(folder, name):
    reads = (load_text_encoder,) if name != "tokenizer.json" else (load_tokenizer,)
    if name.startswith("tokenizer"):
        reads = (load_tokenizer,)
    for content in FILES[name]:
        (folder / name).write_bytes(content.encode("utf-8", "surrogatepass"))
        for read in reads:
            outcome = bounded(lambda read=read: read(folder))
            assert outcome.kind in ("InputError", "returned"), (content[:60], outcome)
            assert outcome.megabytes < 300, (content[:60], outcome)


@pytest.mark.slow
def test_a_damaged_tokenizer_in_a_checkpoint(sound):
    stored = tokenizer_as_text(load_tokenizer(sound))
    for changes in (
        {"json": "{}"},
        {"json": "["},
        {"json": "[" * 10**5},
        {"json": 1},
        {"mask_token": 3},
    ):
        outcome = bounded(lambda changes=changes: tokenizer_from_text(stored | changes))
        assert outcome.kind in ("InputError", "returned"), (str(changes)[:60], outcome)
