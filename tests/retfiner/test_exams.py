"""Exams: several images of one report, read as one sequence and compared as one vector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.losses import build_losses
from retfiner.model import Groups
from retfiner.vision.exams import MARKS, marks_of
from retfiner.vision.images import read_image
from tests.helpers.exam_run import images_of_exam, refine_exams, report_of_exam
from tests.helpers.processes import share_of, together
from tests.helpers.refinement import read_csv, write_csv
from tests.helpers.small import random_batch, small_model

ALL = ["itc", "itm", "mlm", "gm"]


def step(model, batch, names=ALL):
    losses = build_losses(names, model.contrast)
    encoded = model.encode(batch)
    values = {n: loss(model, batch, encoded, generator(0, n)) for n, loss in losses.items()}
    sum(values.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.item() for name, value in values.items()}, gradients


def exams(sizes=(3, 1, 2, 4), seed=0):
    """A batch of exams of such sizes, their images at places along a volume."""
    batch = random_batch(len(sizes), seed=seed)
    draws = torch.Generator().manual_seed(seed)
    images = torch.randn(sum(sizes), 3, 32, 32, generator=draws, dtype=torch.float64)
    places = [n / max(1, size - 1) for size in sizes for n in range(size)]
    marks = torch.tensor([marks_of(p, "OD", "bscan") for p in places], dtype=torch.float64)
    return batch._replace(images=images, groups=Groups(tuple(sizes), marks))


def grouped_model(**options):
    """A small model whose marks and queries are no longer the zeros they begin as."""
    return small_model(**({"pooling": "attention"} | options))


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=0, abs=1e-8)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-8, msg=name)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"contrast": "sigmoid"}])
def test_exams_of_one_image_have_the_numbers_of_single_images(pooling, options):
    batch = random_batch(6)
    groups = Groups((1,) * 6, torch.zeros(6, MARKS, dtype=torch.float64))
    expected = step(small_model(**options), batch)
    found = step(grouped_model(pooling=pooling, **options), batch._replace(groups=groups))
    assert_same(found, expected)


def test_marks_begin_as_nothing():
    from retfiner.model import RetFiner
    from tests.helpers.small import small_backbone, small_bert

    model = RetFiner(small_backbone(), small_bert(), 4, 16, pooling="attention").double().eval()
    batch = exams((2, 2))
    tokens = model.encode_images(batch.images)
    laid, mask = model.group(tokens, batch.groups, (2, 2))
    assert mask is None and torch.equal(laid, tokens.reshape(2, -1, tokens.shape[-1]))
    mean = model.contra_head_v.linear(tokens[:, 0]).unflatten(0, (2, 2)).mean(1)
    expected = torch.nn.functional.normalize(mean, dim=-1)
    torch.testing.assert_close(model.embed_images(laid, 2), expected)


def one_by_one(model, batch):
    """Each exam in a batch of its own, where nothing is padded: embedding and fused states."""
    found, first = [], 0
    for row, size in enumerate(batch.groups.sizes):
        own = slice(first, first + size)
        first += size
        tokens = model.encode_images(batch.images[own]) + model.image_marks(
            batch.groups.marks[own]
        ).unsqueeze(1)
        sequence = tokens.flatten(0, 1)[None]
        text = batch.input_ids[row : row + 1], batch.attention_mask[row : row + 1]
        image = model.multimodal_encoder.project_image(sequence)
        states = model.multimodal_encoder.fuse(*text, image)
        found.append((model.embed_images(sequence, size)[0], states[0, 0]))
    return found


def test_smaller_exams_are_as_if_nothing_were_padded():
    model, batch = grouped_model(), exams()
    encoded = model.encode(batch)
    image = encoded.image
    states = model.multimodal_encoder.fuse(batch.input_ids, batch.attention_mask, image)
    for row, (vector, state) in enumerate(one_by_one(model, batch)):
        torch.testing.assert_close(encoded.image_embedding[row], vector, rtol=0, atol=1e-10)
        torch.testing.assert_close(states[row, 0], state, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
def test_chunks_have_the_numbers_of_the_whole_batch(chunk_size):
    assert_same(step(grouped_model(chunk_size=chunk_size), exams()), step(grouped_model(), exams()))


def test_in_training_mode_with_dropout_padded_keys_are_not_seen():
    """The attention that a CPU takes with dropout is another one."""
    model, batch = grouped_model(), exams()
    model.multimodal_encoder.train()
    for module in model.multimodal_encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 1e-12
    assert_same(step(model, batch), step(grouped_model(), batch))


def test_every_image_of_an_exam_counts_and_its_place_too():
    model, batch = grouped_model(), exams((3, 2))
    before = model.encode(batch).image_embedding
    for row in range(5):
        changed = batch.images.clone()
        changed[row] += 1
        after = model.encode(batch._replace(images=changed)).image_embedding
        moved = (before - after).abs().amax(1) > 1e-6
        assert moved.tolist() == [row < 3, row >= 3]
    turned = batch._replace(groups=batch.groups._replace(marks=batch.groups.marks.flip(0)))
    assert not torch.allclose(model.encode(turned).image_embedding, before)


def step_together(rank, sizes, batch):
    torch.manual_seed(0)
    own = share_of(batch, sizes, rank)
    return step(grouped_model(), own)


@pytest.mark.parametrize("sizes", [(3, 1, 2, 4, 1), (1, 1, 1, 2, 2)])
def test_two_processes_have_the_numbers_of_one(tmp_path, sizes):
    expected = step(grouped_model(), exams(sizes))
    parts = together(2, tmp_path, step_together, [3, 2], exams(sizes))
    for name, value in expected[0].items():
        mean = sum(part[0][name] for part in parts) / 2
        assert mean == pytest.approx(value, rel=0, abs=1e-8), name
    for name, gradient in expected[1].items():
        mean = sum(part[1][name] for part in parts) / 2
        torch.testing.assert_close(mean, gradient, rtol=0, atol=1e-8, msg=name)


def test_places_tell_neighbours_from_ends():
    places = [torch.tensor(marks_of(p)) for p in (0.0, 0.02, 1.0)]
    assert (places[0] - places[1]).norm() < (places[0] - places[2]).norm()
    assert marks_of() == [0.0] * MARKS and sum(marks_of(None, "OS", "fundus")) == 2


def test_images_of_an_exam_are_augmented_alike():
    from retfiner.vision.preprocessing import augment_batch

    image = torch.rand(1, 3, 32, 32).expand(5, -1, -1, -1)
    edges = torch.zeros(3), torch.ones(3)
    found = augment_batch(image, *edges, generator(0), total=2, sizes=(3, 2))
    assert torch.equal(found[0], found[2]) and torch.equal(found[3], found[4])
    assert not torch.equal(found[0], found[3])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return refine_exams(tmp_path_factory.mktemp("exams"))


@pytest.fixture(scope="module")
def model(run):
    from retfiner.api import load_model

    return load_model(run[0].folder, "cpu")


def test_a_run_on_exams_trains_marks_and_queries(run):
    from retfiner.export.loading import read_model
    from tests.helpers.refinement import column

    result, _, _ = run
    assert all(value == value for value in column(result.folder, "val/loss"))
    model = read_model(result.folder).model
    assert model.image_marks.weight.abs().max() > 0 and model.contra_pool.query.abs().max() > 0


def test_a_run_on_exams_is_repeated_by_its_seed(run, tmp_path):
    from retfiner.refine import refine
    from tests.helpers.refinement import column

    result, _, config = run
    again = refine(replace(config, output_dir=tmp_path))
    for name in ("val/loss", "step/loss", "val/itc"):
        assert column(again.folder, name) == column(result.folder, name)
    workers = refine(replace(config, output_dir=tmp_path / "w", num_workers=1))
    assert column(workers.folder, "val/loss") == column(result.folder, "val/loss")


def test_an_exam_from_python(run, model):
    _, table, _ = run
    paths = images_of_exam(table, 3)
    vector = model.encode_exam(paths, "OD")
    assert vector.shape == (512,) and abs((vector**2).sum() - 1) < 1e-5
    three = [paths[number] for number in (0, 2, 3)]  # as max_slices 3 chooses of four
    alone = model.encode_images(paths[0])[0]
    assert abs(model.encode_exam([paths[0]]) - alone).max() < 1e-5, "an exam of one is the image"
    assert abs(vector - model.encode_exam(three[::-1], "OD")).max() > 1e-6, "order is place"
    assert model.exam_features(paths, "OD").shape == model.features(paths[0])[0].shape
    with pytest.raises(InputError, match="2 eyes for 4 images"):
        model.encode_exam(paths, ["OD", "OS"])


def tokens_of(model, paths, places, eye="OD"):
    """Encode an exam as the page says it is: image by image, marks added, one sequence."""
    pixels = torch.stack([model.loaded.transform(read_image(path)) for path in paths])
    marks = torch.tensor([marks_of(place, eye) for place in places])
    whole = model.loaded.model
    with torch.no_grad():
        return (whole.encode_images(pixels) + whole.image_marks(marks)[:, None]).flatten(0, 1)[None]


def match_of(model, tokens, report):
    text, _ = model.loaded.tokenize([report])
    whole = model.loaded.model
    with torch.no_grad():
        states = whole.multimodal_encoder.fuse(
            *text, whole.multimodal_encoder.project_image(tokens)
        )
        return whole.itm_head(states[:, 0]).softmax(1)[0, 1].item()


def test_an_exam_is_matched_with_texts_as_one_sequence(run, model):
    _, table, _ = run
    paths = images_of_exam(table, 3)
    three = tokens_of(model, [paths[0], paths[2], paths[3]], (0, 2 / 3, 1))
    two = tokens_of(model, images_of_exam(table, 1), (0, 1))
    texts = [report_of_exam(exam) for exam in (3, 1, 5)]
    exams = [model.exam(images_of_exam(table, exam), "OD") for exam in (3, 1)]
    expected = [match_of(model, three, text) for text in texts]
    assert model.match(exams[0], texts) == pytest.approx(expected, abs=1e-6)
    assert np.ptp(expected) > 1e-6, "the texts are told apart"
    expected = [match_of(model, three, texts[0]), match_of(model, two, texts[1])]
    assert model.match(exams, texts[:2]) == pytest.approx(expected, abs=1e-6), "one is padded"
    both = model.encode_images([exams[0], paths[0]])
    assert both[0] == pytest.approx(model.encode_exam(paths, "OD"), abs=1e-6)
    assert both[1] == pytest.approx(model.encode_images(paths[0])[0], abs=1e-5)
    with pytest.raises(InputError, match="exam_features"):
        model.features(exams[0])


@pytest.mark.parametrize("decode", ["greedy", "beam", "nucleus"])
def test_a_report_is_written_of_all_images_of_an_exam(run, model, decode):
    from retfiner.text.generation import Decoding, special_tokens, write_reports

    _, table, _ = run
    exams = [model.exam(images_of_exam(table, exam), "OD") for exam in (3, 1)]
    written = model.generate(exams, decode)
    assert model.generate(exams[0], decode) == written[:1], "padding says nothing"
    text = model.loaded.model.multimodal_encoder
    image = text.project_image(tokens_of(model, images_of_exam(table, 1), (0, 1)))
    special = special_tokens(model.loaded.tokenizer)
    draws = [generator(0, "generate", 1)]
    ids = write_reports(text, image, special, 14, Decoding(decode), draws).tokens[0]
    assert written[1] == model.loaded.tokenizer.decode(ids)


def test_a_word_is_explained_over_the_images_of_an_exam(run, model):
    from retfiner.explanation.maps import fuse_explicitly

    _, table, _ = run
    paths, report = images_of_exam(table, 3), report_of_exam(3)
    exam = model.exam(paths, "OD")
    found = model.explain(exam, report)
    assert found.names == [f"OD, {n} of 4" for n in (1, 3, 4)]
    tokens = tokens_of(model, [paths[0], paths[2], paths[3]], (0, 2 / 3, 1))
    text, _ = model.loaded.tokenize([report])
    with torch.no_grad():
        _, taken = fuse_explicitly(model.loaded.model.multimodal_encoder, *text, tokens)
    each = tokens.shape[1] // 3
    for number, word in enumerate(found.words):
        pieces = taken[0][0, :, list(word.pieces)].mean((0, 1))  # over heads and WordPieces
        for image in range(3):
            expected = pieces[image * each : (image + 1) * each][1:]
            assert found.attention[number, image].ravel() == pytest.approx(expected, abs=1e-6)
    assert found.match == pytest.approx(model.match(exam, report)[0], abs=1e-5)
    shares = found.shares()
    assert shares.shape == (len(found.words), 3) and shares.sum(1) == pytest.approx(1)
    one = found.of(2)
    assert np.array_equal(one.image, read_image(paths[3]))
    assert np.array_equal(one.weighted, found.weighted[:, 2])
    alone = model.explain(model.exam(paths[0]), report).of(0)
    single = model.explain(paths[0], report)
    assert alone.weighted == pytest.approx(single.weighted, abs=1e-6), "an exam of one"
    assert single.rollout == pytest.approx(found.rollout[0], abs=1e-6)


def test_exams_are_retrieved_by_what_encode_exam_and_match_give(run, model):
    from retfiner.evaluation.config import EvaluateConfig
    from retfiner.evaluation.retrieval.evaluate import evaluate_retrieval

    result, table, _ = run
    config = EvaluateConfig("retrieval", result.folder, table, part="all", num_workers=0)
    numbers = evaluate_retrieval(config, model.loaded)
    assert (numbers["pairs"], numbers["rerank_top"]) == (16, 16)
    own = EvaluateConfig("retrieval", result.folder, table, num_workers=0)
    assert evaluate_retrieval(own, model.loaded)["part"] == "validation"
    exams = [model.exam(images_of_exam(table, exam), "OD") for exam in range(16)]
    texts = model.encode_texts([report_of_exam(e) for e in range(16)])
    ids = [text.tobytes() for text in texts]  # some are one text once they are cut
    distinct = [report_of_exam(ids.index(one)) for one in dict.fromkeys(ids)]
    matches = np.stack([model.match(exam, distinct) for exam in exams])
    places = list(dict.fromkeys(ids))
    for kind, scores in (
        ("itc", model.encode_images(exams) @ model.encode_texts(distinct).T),
        ("itm", matches),
    ):
        hits = [places[best] == ids[exam] for exam, best in enumerate(scores.argmax(1))]
        found = numbers["retrieval"][kind]["image_to_text"]["recall@1"]["value"]
        shares = [1 / ids.count(one) for one in ids]  # exams of one report are one query
        assert found == pytest.approx(np.average(hits, weights=shares))
    single = evaluate_retrieval(
        replace(config, group_column="none", on_bad_row="skip"), model.loaded
    )
    assert single["rerank_top"] > 0


def test_images_trained_on_are_counted_whichever_of_an_exam_they_are(run, model, tmp_path):
    from retfiner.evaluation.config import EvaluateConfig
    from retfiner.evaluation.pairs import select_pairs

    result, table, _ = run
    rows = [[f"exams/{exam}_{exam % 4}.png", f"Other {exam}.", f"q{exam}"] for exam in range(16)]
    other = write_csv(tmp_path / "last_images.csv", rows)
    config = EvaluateConfig(
        "retrieval", result.folder, other, image_root=table.parent, group_column="none"
    )
    [note] = select_pairs(config, model.loaded.description).notes
    trained = model.loaded.description["train_pairs"]
    assert note == f"The model was trained on {trained} of these images, by their content."


def test_sentences_that_are_drawn_are_not_cut(run, tmp_path, capsys):
    """A beginning that all reports share stands in the way of a cut at it, and of no draw."""
    from retfiner.refine import refine

    _, table, config = run
    long = "Scan of the retina with the settings of this machine, in the fovea and nasal of it."
    rows = read_csv(table)
    for number, row in enumerate(rows):
        row[0] = str(table.parent / row[0])
        row[1] = f"{long} {report_of_exam(number)}" if row[1] else ""
    begun = write_csv(tmp_path / "t.csv", rows, ("image", "report", "patient_id", "visit", "eye"))
    changes = {"train_csv": begun, "output_dir": tmp_path / "models", "max_epochs": 1}
    refine(replace(config, **changes))
    told = " ".join(capsys.readouterr().out.split())
    assert "are longer than 14 WordPieces and sentences of them are drawn" in told
    assert "the same as another after the cut" not in told
    with pytest.raises(InputError, match="the same once they are cut"):
        refine(replace(config, report_part="all", slices="even", **changes))


def test_reports_of_exams_are_evaluated(run, model, tmp_path):
    from retfiner.evaluation.config import EvaluateConfig
    from retfiner.evaluation.reports.evaluate import evaluate_reports

    result, table, _ = run
    config = EvaluateConfig(
        "report", result.folder, table, part="all", num_workers=0, page=tmp_path / "p.html",
        thumbnails=True, batch_size=4,
    )  # fmt: skip
    numbers = evaluate_reports(config, model.loaded)
    exams = [model.exam(images_of_exam(table, exam), "OD") for exam in range(16)]
    assert [one["reference"] for one in numbers["reports"]] == list(map(report_of_exam, range(16)))
    assert [one["written"] for one in numbers["reports"]] == model.generate(exams)
    assert (tmp_path / "p.html").read_text().count("data:image/jpeg") == 16


def test_an_unreadable_image_leaves_its_exam(run, model, tmp_path):
    from retfiner.data.manifest import read_manifest
    from retfiner.data.pair_table import Columns
    from retfiner.evaluation.embedding import ImageStream
    from tests.helpers.refinement import damage_in_the_middle, write_csv, write_image

    rows = []
    for name, exam in (("a", "1"), ("b", "1"), ("c", "2")):
        write_image(tmp_path / f"{name}.png", ord(name))
        rows.append([f"{name}.png", f"Exam {exam}.", "p", exam])
    table = write_csv(tmp_path / "t.csv", rows, ("image", "report", "patient_id", "visit"))
    pairs = read_manifest(table, columns=Columns(group="visit"))
    for name in "bc":
        damage_in_the_middle(tmp_path / f"{name}.png")
    stream = ImageStream(model.loaded, 4, 0)
    with pytest.raises(InputError, match=r"row 2 of[\s\S]*b\.png"):
        stream.embed_pairs(pairs, skip=False)
    kept, vectors = stream.embed_pairs(pairs, skip=True)
    assert kept.rows == [2]
    expected = model.encode_exam([tmp_path / "a.png"])
    assert abs(vectors[0].numpy() - expected).max() < 0.1, "its place alone is another"


def test_explain_takes_the_exam_of_a_row_or_a_folder(run, tmp_path, capsys):
    from retfiner.explanation.config import ExplainConfig
    from retfiner.explanation.run import run as explain

    result, table, _ = run
    common = {"model": result.folder, "output": tmp_path, "device": "cpu", "html": True}
    row = 2 + 1 + 2 + 3 + 1  # the second image of the fourth exam, whose report is in its first
    written = explain(ExplainConfig(data=table, row=row, **common))
    assert [path.name for path in written] == [f"exam_row_{row}.png", f"exam_row_{row}.html"]
    said = capsys.readouterr().out
    assert "Images:         3" in said and said.count("of its map") == said.count(" of 4: ") > 3
    page = written[1].read_text()
    assert 'type="range" min="0" max="2"' in page and "OD, 3 of 4" in page
    alone = explain(ExplainConfig(data=table, row=row - 1, group_column="none", **common))
    assert alone[0].name == f"row_{row - 1}_3_0.png" and "Images:" not in capsys.readouterr().out


def test_labelled_images_are_classified_one_by_one(run, model, tmp_path):
    from retfiner.evaluation.config import EvaluateConfig
    from retfiner.evaluation.zero_shot.evaluate import evaluate_zero_shot
    from tests.helpers.refinement import write_image

    for number in range(4):
        write_image(tmp_path / f"set/{'ab'[number % 2]}/{number}.png", number)
    (tmp_path / "p.yaml").write_text("a: [Drusen.]\nb: [Fluid nasal.]\n")
    config = EvaluateConfig(
        "zero_shot", run[0].folder, tmp_path / "set", prompts=tmp_path / "p.yaml",
        results=tmp_path / "r", bootstrap=0, num_workers=0,
    )  # fmt: skip
    numbers = evaluate_zero_shot(config, model.loaded)
    assert numbers["images"] == 4 and "refined on exams" in " ".join(numbers["notes"])


def test_a_folder_is_an_exam_for_a_model_that_knows_them(run, tmp_path, capsys):
    from retfiner.explanation.config import ExplainConfig
    from retfiner.explanation.run import run as explain

    result, table, _ = run
    named = {"image": str(table.parent / "exams"), "report": "Drusen temporal."}
    explain(ExplainConfig(model=result.folder, output=tmp_path, device="cpu", **named))
    assert "Images:         3" in capsys.readouterr().out and (tmp_path / "exams.png").is_file()


def test_the_extracted_backbone_is_as_ever_and_the_pooling_beside_it(run, tmp_path, capsys):
    from retfiner.api import load_model
    from retfiner.export.config import ExtractConfig
    from retfiner.export.extract import extract
    from retfiner.vision import load_backbone
    from retfiner.vision.exams import ExamPooling

    result, table, _ = run
    output = extract(ExtractConfig(result.folder / "best-model.ckpt", output=tmp_path / "w.pth"))
    assert "w_exam.pth" in capsys.readouterr().out
    model = load_model(result.folder, "cpu")
    backbone, pooling = load_backbone(output), ExamPooling.load(tmp_path / "w_exam.pth")
    paths = [table.parent / "exams" / f"2_{number}.png" for number in range(3)]
    pixels = model._pixels(paths)
    assert torch.equal(backbone.features(pixels), model._model.backbone.features(pixels))
    marks = torch.tensor([marks_of(place, "OD") for place in (0, 0.5, 1)])
    shares = pooling(backbone.fusion_tokens(pixels), marks)
    assert shares.sum().item() == pytest.approx(1) and shares.std() > 0
    expected = model.exam_features(paths, "OD")
    torch.testing.assert_close(shares @ backbone.features(pixels), torch.from_numpy(expected))
    with pytest.raises(InputError, match="no pooling of exams"):
        ExamPooling.load(output)


def test_the_examples_of_the_page_run(run, tmp_path, monkeypatch):
    import re
    from pathlib import Path

    from retfiner.export.config import ExtractConfig
    from retfiner.export.extract import extract
    from tests.helpers.image_files import bscans, write_e2e
    from tests.helpers.refinement import write_image

    page = (Path(__file__).parents[2] / "docs/exams.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    (tmp_path / "RetFiner/models").mkdir(parents=True)
    (tmp_path / "RetFiner/models/NAME").symlink_to(run[0].folder.resolve())
    write_e2e(tmp_path / "volume.e2e", {1: bscans(13, top=65535)})
    write_image(tmp_path / "fundus.png", 0)
    output = tmp_path / "_weights/best-model_NAME_bscan.pth"
    extract(ExtractConfig(run[0].folder / "best-model.ckpt", output=output))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"images": torch.rand(5, 3, 32, 32)}
    for example in examples:
        exec(compile(example, "exams.md", "exec"), names)
    assert names["vector"].shape == (512,) and names["similar"].shape == (1,)
    assert names["shares"].shape == (5,) and names["features"].dim() == 1


def test_a_model_of_single_images_says_that_it_reads_no_exams():
    from types import SimpleNamespace

    from retfiner.api import RefinedModel
    from retfiner.data.exams import Exam
    from retfiner.evaluation.embedding import ImageStream

    loaded = SimpleNamespace(model=small_model(), transform=None, description={})
    refused = r"single images[\s\S]*--group_column"
    with pytest.raises(InputError, match=refused):
        RefinedModel(loaded).encode_exam(["a.png"])
    with pytest.raises(InputError, match=refused):
        ImageStream(loaded, 4).batches([Exam((), "")], "")
