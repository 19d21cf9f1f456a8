"""The settings of a run: the list of flags is frozen, nonsense is refused in plain words."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from retfiner.common.cli import as_plain, build_parser, parse
from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.text.folder import DEFAULT_TEXT_ENCODER

FLAGS = {
    "backbone": "auto",
    "image_size": None,
    "train_csv": None,
    "val_csv": None,
    "val_fraction": 0.1,
    "image_root": None,
    "image_column": "image",
    "report_column": "report",
    "patient_column": "patient_id",
    "slice_column": None,
    "first_slice": None,
    "patient_ids": "normalised",
    "table_encoding": None,
    "strip_common": False,
    "not_in": None,
    "max_alike": 0.3,
    "on_bad_row": "error",
    "augment": None,
    "train_interpolation": None,
    "dataset": None,
    "text_encoder": DEFAULT_TEXT_ENCODER,
    "max_text_tokens": 30,
    "group_column": None,
    "pooling": "attention",
    "slices": "even",
    "max_slices": 16,
    "report_part": "all",
    "losses": ["itc", "itm", "mlm", "gm"],
    "loss_weights": None,
    "contrast": "softmax",
    "contra_temp": None,
    "fixed_temp": None,
    "exponential_temp": False,
    "itm_negatives": None,
    "random_token_from": None,
    "redraw_masks": None,
    "duplicate_reports": None,
    "recipe": "auto",
    "lr": None,
    "vision_lr": None,
    "text_lr": None,
    "weight_decay": 0.01,
    "lr_schedule": None,
    "warmup_steps": None,
    "fusion_warmup_steps": None,
    "batch_size": None,
    "contrast_batch": None,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "max_epochs": None,
    "monitor": None,
    "patience": None,
    "checkpoint_every_n_steps": 1000,
    "logger": ["tensorboard"],
    "unfreeze_last": None,
    "layer_decay": 1.0,
    "lora_rank": None,
    "lora_alpha": None,
    "drop_path": None,
    "gradient_checkpointing": False,
    "optimizer_states": "float32",
    "compile": False,
    "precision": "auto",
    "accelerator": "auto",
    "devices": "auto",
    "deterministic": False,
    "num_nodes": None,
    "strategy": "auto",
    "num_workers": None,
    "image_cache": False,
    "worker_start": "auto",
    "seed": 0,
    "note": "",
    "output_dir": Path("models"),
    "resume": None,
}
"""Every flag of train.py beside --model_weights, with its default; scripts rely on both."""

NEEDED = ["--model_weights", "w.pth", "--train_csv", "p.csv"]


def parsed(*words):
    return parse(RefineConfig, "", [*NEEDED, *words])


def test_the_flags_and_their_defaults_are_these():
    config = as_plain(parsed("--train_csv", "x"))
    assert config == {k: as_plain(v) for k, v in FLAGS.items()} | {
        "model_weights": "w.pth",
        "train_csv": "x",
    }


def test_every_flag_is_a_line_of_help_with_its_default():
    text = " ".join(build_parser(RefineConfig, "What it does.").format_help().split())
    for field in dataclasses.fields(RefineConfig):
        assert re.search(rf"--{field.name}[ ,]", text)
        assert " ".join(field.metadata["help"].split()) in text
    assert "default: 0.01" in text
    assert "What it does." in text


def test_the_text_encoder_lies_in_this_repository():
    assert DEFAULT_TEXT_ENCODER.relative_to(REPOSITORY).parts[0] == "pretrained_weights"
    assert (REPOSITORY / "RetFiner" / "train.py").is_file()


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--losses", "mlm", "gm"], "losses", ["mlm", "gm"]),
        (["--loss_weights", "1", "0.5", "2", "0"], "loss_weights", [1.0, 0.5, 2.0, 0.0]),
        (["--exponential_temp"], "exponential_temp", True),
        (["--seed", "7"], "seed", 7),
        (["--lr", "3e-5"], "lr", 3e-5),
        (["--resume", "models/a b"], "resume", Path("models/a b")),
        (["--output_dir=models/epoch=3"], "output_dir", Path("models/epoch=3")),
        (["--val_csv", "v.csv"], "val_csv", Path("v.csv")),
        (["--num_workers", "0"], "num_workers", 0),
        (["--gradient_clip_val", "0.5"], "gradient_clip_val", 0.5),
    ],
)
def test_words_become_typed_values(words, name, value):
    found = getattr(parsed(*words), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rate", "1"],  # unknown
        ["--loss", "itc"],  # an abbreviation
        ["--lr", "0"],
        ["--lr", "fast"],
        ["--batch_size", "0"],
        ["--batch_size", "2.5"],
        ["--val_fraction", "0"],
        ["--val_fraction", "1"],
        ["--seed", "-1"],
        ["--weight_decay", "-0.1"],
        ["--losses", "itc", "clip"],
        ["--precision", "fp8"],
        ["--on_bad_row", "ignore"],
        ["--worker_start", "thread"],
        ["--max_text_tokens", "0"],
    ],
)
def test_a_line_that_cannot_be_parsed_ends_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        parsed(*words)
    assert caught.value.code == 2
    assert words[0].lstrip("-") in capsys.readouterr().err


def test_weights_are_required(capsys):
    with pytest.raises(SystemExit):
        parse(RefineConfig, "", ["--train_csv", "p.csv"])
    assert "model_weights" in capsys.readouterr().err


def test_a_file_gives_settings_and_the_line_goes_before_it(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 0.5\nlosses: [itc]\nseed: 3\nexponential_temp: true\n")
    config = parse(RefineConfig, "", ["--config", str(tmp_path / "c.yaml"), *NEEDED, "--seed", "4"])
    assert (config.lr, config.losses, config.seed, config.exponential_temp) == (
        0.5,
        ["itc"],
        4,
        True,
    )


def test_an_unknown_key_of_a_file_is_an_error(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("learning_rate: 0.5\n")
    with pytest.raises(SystemExit) as caught:
        parse(RefineConfig, "", ["--config", str(tmp_path / "c.yaml"), *NEEDED])
    assert caught.value.code == 2
    assert "learning_rate" in capsys.readouterr().err


def test_settings_written_as_yaml_are_read_back_alike(tmp_path):
    config = parsed("--losses", "gm", "--loss_weights", "2", "--note", "ja", "--contra_temp", "0.1")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(as_plain(config)))
    assert parse(RefineConfig, "", ["--config", str(tmp_path / "c.yaml")]) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_csv": None}, "nothing to train on"),
        ({"dataset": "a.py:A"}, "--dataset and a CSV"),
        ({"train_csv": None, "dataset": "a.py:A", "val_csv": Path("v")}, "--dataset and a CSV"),
        ({"batch_size": 1}, "a batch of one.*\n.*itc and itm"),
        ({"batch_size": 1, "losses": ["itm", "gm"]}, "a batch of one.*\n.*with itm"),
        ({"contrast_batch": 1}, "a batch of one.*\n.*--contrast_batch 1 with itc"),
        (
            {"contrast_batch": 64, "batch_size": 128},
            "smaller than --batch_size\n.*64 to contrast, computed 128 at",
        ),
        ({"contrast_batch": 256, "losses": ["mlm"]}, "nothing to contrast"),
        ({"contrast_batch": 256, "strategy": "fsdp"}, "do not go together"),
        ({"contrast": "sigmoid", "losses": ["itm"]}, "no effect without itc"),
        ({"contrast": "sigmoid", "exponential_temp": True}, "exponential_temp has no effect"),
        ({"max_text_tokens": 2}, "no room for a word"),
        ({"losses": ["itc", "itc"]}, "named twice"),
        ({"loss_weights": [1.0]}, "1 weights for 4 losses"),
        ({"loss_weights": [0.0] * 4}, "every loss has weight 0"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(InputError, match=message):
        RefineConfig(**({"model_weights": Path("w"), "train_csv": Path("p")} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"not_in": Path("probing")},
        {"image_cache": True},
        {"strip_common": True},
        {"report_column": "text"},
        {"patient_column": "mrn"},
        {"max_alike": 0.9},
    ],
    ids=str,
)
def test_a_data_set_of_ones_own_heeds_no_flag_of_tables(changes):
    """It would be trained on what --not_in names, for example, and nobody would know."""
    words = {"model_weights": Path("w"), "dataset": "a.py:A"}
    with pytest.raises(InputError, match=f"--{next(iter(changes))} without effect"):
        RefineConfig(**words, **changes)
    RefineConfig(**words, patient_column="none", image_root=Path("r"), on_bad_row="skip")
    RefineConfig(model_weights=Path("w"), train_csv=Path("p"), **changes)


def test_a_batch_of_one_is_enough_where_nothing_is_contrasted():
    config = RefineConfig(
        model_weights=Path("w"), train_csv=Path("p"), batch_size=1, losses=["mlm", "gm"]
    )
    assert config.weights == {"mlm": 1.0, "gm": 1.0}


def test_chunks_of_one_have_something_to_contrast():
    assert parsed("--batch_size", "1", "--contrast_batch", "64").contrast_batch == 64


def test_where_the_temperature_starts():
    assert parsed().temperature == 0.07
    assert parsed("--contrast", "sigmoid").temperature == 0.1
    assert parsed("--contrast", "sigmoid", "--contra_temp", "0.05").temperature == 0.05


def test_weights_by_name():
    config = parsed("--losses", "gm", "itc", "--loss_weights", "0.5", "2")
    assert config.weights == {"gm": 0.5, "itc": 2.0}


def test_help_does_not_wait_for_torch():
    """``--help`` answers at once because train.py imports the library only after parsing."""
    code = (
        "import sys; from retfiner.config import RefineConfig;"
        " print(sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_seed_that_numpy_cannot_take():
    with pytest.raises(InputError, match="seed is too large"):
        RefineConfig(model_weights=Path("w.pth"), train_csv=Path("p.csv"), seed=2**32)
