"""Text encoders and tokenizers from disk: whole, or an error that says what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from retfiner.common.errors import InputError
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer, report_lengths, tokenize
from tests.helpers.refinement import write_text_encoder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("text") / "bert")


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bert")


def weights(folder):
    return folder / "model.safetensors"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(folder):
    content = weights(folder).read_bytes()
    weights(folder).write_bytes(content[: len(content) // 2])


def garble(folder):
    weights(folder).write_bytes(b"no weights" * 100)


def leave_empty(folder):
    weights(folder).write_bytes(b"")


def remove(folder):
    weights(folder).unlink()


def garble_old_format(folder):
    weights(folder).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"no weights" * 100)


def empty_old_format(folder):
    weights(folder).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def widen(folder):
    change_config(folder, hidden_size=64)


def split_unevenly(folder):
    change_config(folder, num_attention_heads=5)


@pytest.mark.parametrize(
    "damage",
    [
        cut, garble, leave_empty, remove, garble_old_format, empty_old_format, widen,
        split_unevenly,
    ],
)  # fmt: skip
def test_weights_that_cannot_be_used(folder, damage):
    damage(folder)
    with pytest.raises(InputError, match=r"text encoder in .*bert") as caught:
        load_text_encoder(folder)
    assert "got:" in str(caught.value) and "expected:" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "gpt2"}', None])
def test_a_configuration_that_cannot_be_used(folder, content):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"no text encoder|not a BERT"):
        load_text_encoder(folder)


def test_weights_that_are_left_over_are_named(folder):
    state = load_file(weights(folder))
    weights(folder).unlink()
    layer = "bert.encoder.layer.2.attention.self.query.weight"
    torch.save(state | {layer: torch.zeros(32, 32)}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"left over: {layer}"):
        load_text_encoder(folder)


def test_names_of_the_first_berts_are_read_bit_for_bit(folder, original):
    """TensorFlow's gamma and beta, as in the oldest published files."""
    expected = load_text_encoder(original).state_dict()
    with torch.no_grad():  # norms that are 1 and 0 could not be told from new ones
        for number, (key, value) in enumerate(expected.items()):
            if "LayerNorm" in key:
                value.copy_(torch.linspace(-1, 1, len(value)) + number)
    old = {
        key.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for key, value in expected.items()
    }  # fmt: skip
    assert sum("gamma" in key for key in old) == 2 * 3 + 2
    weights(folder).unlink()
    torch.save(old, folder / "pytorch_model.bin")
    found = load_text_encoder(folder).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_float16_weights_become_float32_without_a_change(folder):
    state = {key: value.half() for key, value in load_file(weights(folder)).items()}
    weights(folder).unlink()
    torch.save(state, folder / "pytorch_model.bin")
    found = load_text_encoder(folder).state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert all(torch.equal(found[key], value.float()) for key, value in state.items())


def test_a_folder_without_a_vocabulary_is_an_error(folder):
    """Left to itself, transformers makes a tokenizer to which every word is [UNK]."""
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no tokenizer") as caught:
        load_tokenizer(folder)
    assert "vocab.txt or tokenizer.json" in str(caught.value)


def test_a_damaged_tokenizer_is_an_error(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="no tokenizer"):
        load_tokenizer(folder)


def test_vocab_txt_alone_is_enough(folder, original):
    """As in the oldest published folders."""
    vocabulary = load_tokenizer(original).get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    report = ["B-scan with drusen nasal of the fovea."]
    assert torch.equal(
        tokenize(load_tokenizer(folder), report, 30).input_ids,
        tokenize(load_tokenizer(original), report, 30).input_ids,
    )


def test_batches_are_padded_to_their_longest_report(original):
    tokenizer = load_tokenizer(original)
    reports = ["drusen", "no fluid in the fovea", ""]
    ids, mask = tokenize(tokenizer, reports, 30)
    assert mask.sum(1).tolist() == report_lengths(tokenizer, reports) == [3, 7, 2]
    assert ids.shape == (3, 7)
    assert (ids[~mask.bool()] == tokenizer.pad_token_id).all()
    assert (ids[:, 0] == tokenizer.cls_token_id).all()
    assert ids[2, :2].tolist() == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert tokenizer.unk_token_id not in ids
