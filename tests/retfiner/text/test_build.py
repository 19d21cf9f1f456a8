"""Adding cross-attention to any BERT: every pretrained weight is kept, nothing else is taken."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
)

from retfiner.common.errors import InputError
from retfiner.data.pair_table import read_reports
from retfiner.text.build import TextEncoderConfig, build_text_encoder
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer, report_lengths, tokenize, train_tokenizer

REPORTS = ["No obvious abnormality.", "Drusen, no fluid.", "Subretinal fluid in the fovea."] * 4


def write_bert(folder, kind, width=36, do_lower_case=True):
    torch.manual_seed(1)
    tokenizer = train_tokenizer(REPORTS, 200)
    if not do_lower_case:
        tokenizer = type(tokenizer)(vocab=tokenizer.get_vocab(), do_lower_case=False)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, max_position_embeddings=32,
    )  # fmt: skip
    model = kind(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining, BertModel])
def test_every_pretrained_weight_is_kept(tmp_path, kind, capsys):
    model = write_bert(tmp_path / "source", kind)
    build_text_encoder(
        TextEncoderConfig(source=str(tmp_path / "source"), output=tmp_path / "built"), read_reports
    )
    built = load_text_encoder(tmp_path / "built").state_dict()
    kept = 0
    for key, value in model.state_dict().items():
        if "pooler" in key or "seq_relationship" in key:
            continue
        ours = key if key.startswith(("bert.", "cls.")) else f"bert.{key}"
        assert torch.equal(built[ours], value), key
        kept += 1
    new = [key for key in built if "crossattention" in key]
    assert kept >= 37 and len(new) == 2 * 10
    assert "of them 20 of cross-attention" in capsys.readouterr().out


def test_the_same_seed_makes_up_the_same_weights(tmp_path):
    write_bert(tmp_path / "source", BertForMaskedLM)
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_text_encoder(
            TextEncoderConfig(source=str(tmp_path / "source"), output=tmp_path / name, seed=seed),
            read_reports,
        )
        states.append(load_text_encoder(tmp_path / name).state_dict())
    key = "bert.encoder.layer.0.crossattention.self.query.weight"
    assert torch.equal(states[0][key], states[1][key])
    assert not torch.equal(states[0][key], states[2][key])


def test_a_cased_vocabulary_stays_cased(tmp_path):
    write_bert(tmp_path / "source", BertForMaskedLM, do_lower_case=False)
    build_text_encoder(
        TextEncoderConfig(source=str(tmp_path / "source"), output=tmp_path / "built"), read_reports
    )
    tokenizer = load_tokenizer(tmp_path / "built")
    upper, lower = (tokenize(tokenizer, [text], 30).input_ids for text in ("NO fluid", "no fluid"))
    assert upper.tolist() != lower.tolist()


def test_another_kind_of_model_is_refused(tmp_path):
    DistilBertModel(
        DistilBertConfig(dim=32, hidden_dim=32, n_heads=2, n_layers=1, vocab_size=50)
    ).save_pretrained(tmp_path / "source")
    with pytest.raises(InputError, match="not a BERT"):
        build_text_encoder(
            TextEncoderConfig(source=str(tmp_path / "source"), output=tmp_path / "built"),
            read_reports,
        )
    assert not (tmp_path / "built").exists()


def test_a_bert_without_cross_attention_is_no_text_encoder(tmp_path):
    write_bert(tmp_path / "source", BertForMaskedLM)
    with pytest.raises(InputError, match="crossattention"):
        load_text_encoder(tmp_path / "source")


def test_an_output_that_exists_is_not_overwritten(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="no empty folder"):
        build_text_encoder(
            TextEncoderConfig(source="anything", output=tmp_path / "built"), read_reports
        )
    assert (tmp_path / "built" / "mine.txt").read_text() == "keep"


def test_reports_are_cut_and_counted(tmp_path):
    write_bert(tmp_path, BertModel)
    tokenizer = load_tokenizer(tmp_path)
    long = "drusen " * 50
    tokens = tokenize(tokenizer, [long, "no fluid"], 10)
    assert tokens.input_ids.shape == (2, 10)
    assert tokens.attention_mask.sum(1).tolist() == [10, 4]
    assert tokens.input_ids[0, -1] == tokenizer.sep_token_id
    assert report_lengths(tokenizer, [long, "no fluid"]) == [52, 4]
