"""build_text_encoder.py: from reports, from a BERT, and in two processes alike."""

import hashlib

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

from retfiner.common.errors import InputError
from retfiner.data.pair_table import read_reports
from retfiner.text.build import TextEncoderConfig, build_text_encoder
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer, train_tokenizer
from tests.helpers.refinement import report_of, write_csv
from tests.helpers.scripts import run_script


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rows = [["x.png", report_of(i), "p"] for i in range(105)]
    return write_csv(tmp_path_factory.mktemp("reports") / "pairs.csv", rows)


@pytest.fixture(scope="module")
def small(csv):
    """A small BERT, made by the script."""
    folder = csv.parent / "neuer Ordner" / "bert"
    done = run_script(
        "build_text_encoder.py", "--from_reports", csv, "--output", folder, "--width", "64",
        "--layers", "2", "--vocab_size", "150",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    return folder


def small_config(**changes):
    return BertConfig(
        **(
            {"vocab_size": 113, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 128, "max_position_embeddings": 32} | changes
        )
    )  # fmt: skip


def bert_folder(folder, csv, kind=BertForMaskedLM, **changes):
    """Write a plain BERT without cross-attention, as it comes from the hub."""
    tokenizer = train_tokenizer([report_of(i) for i in range(105)], 200)
    torch.manual_seed(1)
    model = kind(small_config(**({"vocab_size": len(tokenizer)} | changes)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.state_dict()


def weights_of(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_a_small_bert_is_complete_and_knows_its_words(small):
    encoder, tokenizer = load_text_encoder(small), load_tokenizer(small)
    assert encoder.config.num_hidden_layers == 2
    assert encoder.config.hidden_size == 64
    assert len(tokenizer) == encoder.config.vocab_size <= 150
    assert any("crossattention" in name for name in encoder.state_dict())
    ids = tokenizer(report_of(3))["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert len(ids) < 30  # words, not letters
    assert tokenizer("DRUSEN")["input_ids"] == tokenizer("drusen")["input_ids"]


def test_another_process_builds_the_same(small, csv, tmp_path):
    """This process and the script's: hash maps are seeded anew in each."""
    build_text_encoder(
        TextEncoderConfig(
            from_reports=csv, output=tmp_path / "again", width=64, layers=2, vocab_size=150
        ),
        read_reports,
    )
    assert weights_of(tmp_path / "again") == weights_of(small)


def test_another_seed_builds_other_weights(small, csv, tmp_path):
    build_text_encoder(
        TextEncoderConfig(from_reports=csv, output=tmp_path / "b", width=64, layers=2,
                          vocab_size=150, seed=1), read_reports)  # fmt: skip
    one, two = weights_of(tmp_path / "b"), weights_of(small)
    assert one["model.safetensors"] != two["model.safetensors"]
    assert one["tokenizer.json"] == two["tokenizer.json"]


def test_a_small_bert_tells_reports_apart(small):
    """With BERT's own initial scale, the [CLS] of all reports would be nearly one vector."""
    encoder, tokenizer = load_text_encoder(small).eval(), load_tokenizer(small)
    tokens = tokenizer([report_of(i) for i in range(15)], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder.encode_text(tokens["input_ids"], tokens["attention_mask"])[:, 0]
    cosine = torch.nn.functional.cosine_similarity(states[:, None], states[None], dim=-1)
    assert cosine[~torch.eye(15, dtype=torch.bool)].mean() < 0.997


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertForPreTraining])
def test_every_weight_of_a_bert_is_kept(csv, tmp_path, kind, capsys):
    before = bert_folder(tmp_path / "plain", csv, kind)
    config = TextEncoderConfig(source=str(tmp_path / "plain"), output=tmp_path / "cross")
    build_text_encoder(config, read_reports)
    after = load_text_encoder(tmp_path / "cross").state_dict()
    kept = {k for k in before if "pooler" not in k and "seq_relationship" not in k}
    assert kept <= after.keys()
    assert all(torch.equal(after[key], before[key]) for key in kept)
    assert all("crossattention" in key for key in after.keys() - kept)
    assert "every pretrained weight kept" in capsys.readouterr().out
    assert load_tokenizer(tmp_path / "cross").get_vocab() == (
        load_tokenizer(tmp_path / "plain").get_vocab()
    )


def test_nothing_is_overwritten(csv, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("full", "file"):
        with pytest.raises(InputError, match="exists and is no empty folder"):
            build_text_encoder(
                TextEncoderConfig(from_reports=csv, output=tmp_path / name), read_reports
            )
    assert (tmp_path / "full" / "mine.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    build_text_encoder(
        TextEncoderConfig(from_reports=csv, output=tmp_path / "empty", width=64, layers=1),
        read_reports,
    )
    assert load_text_encoder(tmp_path / "empty").config.hidden_size == 64


def test_a_bert_with_a_weight_missing_is_refused(csv, tmp_path):
    bert_folder(tmp_path / "plain", csv)
    from safetensors.torch import load_file, save_file

    path = tmp_path / "plain" / "model.safetensors"
    state = load_file(path)
    del state["bert.encoder.layer.1.output.dense.weight"]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"do not fit a BERT.*\n.*layer\.1\.output\.dense\.weight"):
        build_text_encoder(
            TextEncoderConfig(source=str(tmp_path / "plain"), output=tmp_path / "c"), read_reports
        )
    assert not (tmp_path / "c").exists()


def test_a_tokenizer_of_another_model_is_refused(csv, tmp_path):
    bert_folder(tmp_path / "plain", csv, vocab_size=50)
    with pytest.raises(InputError, match="more WordPieces than the model"):
        build_text_encoder(
            TextEncoderConfig(source=str(tmp_path / "plain"), output=tmp_path / "c"), read_reports
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"width": 100}, "--width"), ({"layers": 0}, "--layers"), ({"vocab_size": 9}, "--vocab_size")],
)
def test_sizes_that_cannot_be_built(changes, message):
    with pytest.raises(InputError, match=message):
        TextEncoderConfig(**changes)


def test_reports_without_words(tmp_path):
    empty = write_csv(tmp_path / "p.csv", [["x.png", "", "p"]])
    with pytest.raises(InputError, match="without text"):
        build_text_encoder(
            TextEncoderConfig(from_reports=empty, output=tmp_path / "b"), read_reports
        )


def test_a_source_that_is_not_there(tmp_path):
    config = TextEncoderConfig(source=str(tmp_path / "nowhere"), output=tmp_path / "b")
    with pytest.raises(InputError, match=r"no text encoder can be loaded from .*nowhere"):
        build_text_encoder(config, read_reports)
    assert not (tmp_path / "b").exists()
