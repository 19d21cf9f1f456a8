"""Writing reports: against full passes, naive loops and the enumeration of all reports."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from retfiner.losses.gm import GenerativeModelling
from retfiner.model import RetFiner
from retfiner.text.generation import (
    Decoding,
    IncrementalDecoder,
    SpecialTokens,
    draw_nucleus,
    write_reports,
)
from tests.helpers.small import fill, random_batch, small_backbone, small_bert

SPECIAL = SpecialTokens(start=2, end=3, mask=4, pad=0, never=(2, 4, 0, 1))
GREEDY = Decoding("greedy")


def bert_and_image(vocab_size=120, images=3, seed=3):
    bert = small_bert(vocab_size=vocab_size).double().eval()
    fill(bert)
    tokens = torch.randn(images, 17, 32, generator=torch.Generator().manual_seed(seed)).double()
    return bert, bert.project_image(tokens)


@torch.no_grad()
def full_pass(bert, image, prefix):
    """Logits after a prefix by one whole pass over [CLS] w1 .. wk [MASK], as GM was trained."""
    ids = torch.cat([prefix, torch.full((len(prefix), 1), SPECIAL.mask)], 1)
    states = bert.fuse(ids, torch.ones_like(ids), image, causal=True)
    return bert.predict_tokens(states[:, -1])


def naive_log_p(bert, image, prefix):
    logits = full_pass(bert, image, prefix)
    logits[:, list(SPECIAL.never)] = -torch.inf
    return logits.log_softmax(-1)


def test_kept_keys_and_values_change_nothing():
    bert, image = bert_and_image()
    report = random_batch(size=3, length=9).input_ids.clamp(min=5)
    report[:, 0] = SPECIAL.start
    decoder = IncrementalDecoder(bert, image, SPECIAL.mask)
    for place in range(9):
        stepped = decoder.step(report[:, place : place + 1])[:, 0]
        torch.testing.assert_close(
            stepped, full_pass(bert, image, report[:, : place + 1]), rtol=0, atol=1e-6
        )


def test_candidates_follow_their_reordering_and_share_the_image():
    bert, image = bert_and_image()
    decoder = IncrementalDecoder(bert, image, SPECIAL.mask)
    decoder.step(torch.full((3, 1), SPECIAL.start))
    decoder.reorder(torch.zeros(3, 2, dtype=torch.long))
    decoder.step(torch.tensor([[10, 11], [12, 13], [14, 15]]))
    decoder.reorder(torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]]))
    after = decoder.step(torch.tensor([[20, 21, 22]] * 3))
    prefixes = [[11, 11, 10], [12, 13, 13], [14, 14, 15]]
    for column, word in enumerate((20, 21, 22)):
        prefix = torch.tensor([[SPECIAL.start, prefixes[row][column], word] for row in range(3)])
        torch.testing.assert_close(
            after[:, column], full_pass(bert, image, prefix), rtol=0, atol=1e-6
        )


def test_greedy_is_the_naive_loop():
    bert, image = bert_and_image()
    written = write_reports(bert, image, SPECIAL, 12, GREEDY)
    for row in range(3):
        one = [type(kv)(kv.keys[row : row + 1], kv.values[row : row + 1]) for kv in image]
        tokens, score = [SPECIAL.start], 0.0
        while len(tokens) < 11:
            log_p = naive_log_p(bert, one, torch.tensor([tokens]))[0]
            token = int(log_p.argmax())
            score += float(log_p[token])
            if token == SPECIAL.end:
                break
            tokens.append(token)
        assert written.tokens[row] == tokens[1:]
        assert written.log_probabilities[row] == pytest.approx(score, abs=1e-6)


def test_a_beam_of_one_is_greedy():
    bert, image = bert_and_image()
    greedy = write_reports(bert, image, SPECIAL, 12, GREEDY)
    assert write_reports(bert, image, SPECIAL, 12, Decoding("beam", beams=1)) == greedy


def test_a_wide_beam_finds_the_likeliest_of_all_reports():
    """Four tokens may be written ([SEP] and three words), in reports of up to four tokens."""
    bert, image = bert_and_image(vocab_size=8, seed=11)
    found = write_reports(bert, image, SPECIAL, 6, Decoding("beam", beams=256))
    for row in range(3):
        one = [type(kv)(kv.keys[row : row + 1], kv.values[row : row + 1]) for kv in image]
        after = {
            words: naive_log_p(bert, one, torch.tensor([[SPECIAL.start, *words]]))[0]
            for length in range(4)
            for words in itertools.product((5, 6, 7), repeat=length)
        }
        scores = {}
        for length in range(5):
            for words in itertools.product((5, 6, 7), repeat=length):
                steps = [after[words[:place]][word] for place, word in enumerate(words)]
                if length < 4:
                    steps.append(after[words][SPECIAL.end])
                scores[words] = float(sum(steps))
        best = max(scores, key=scores.get)
        assert found.tokens[row] == list(best)
        assert found.log_probabilities[row] == pytest.approx(scores[best], abs=1e-6)


def test_more_beams_never_find_worse():
    bert, image = bert_and_image(images=6)
    scores = [
        write_reports(bert, image, SPECIAL, 10, Decoding("beam", beams=b)).log_probabilities
        for b in (1, 40)
    ]
    assert all(wide >= narrow - 1e-9 for narrow, wide in zip(*scores, strict=True))


def test_nucleus_draws_the_renormalised_head_of_the_distribution():
    probabilities = torch.tensor([[0.1, 0.4, 0.05, 0.3, 0.15]]).double()
    draws = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).double()
    drawn = draw_nucleus(probabilities.expand(20_000, -1), 0.75, draws)
    shares = np.bincount(drawn.numpy(), minlength=5) / 20_000
    expected = np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85  # 0.4 + 0.3 < 0.75 <= 0.85
    np.testing.assert_allclose(shares, expected, atol=0.015)
    assert (shares[[0, 2]] == 0).all()


def test_a_small_nucleus_is_greedy_and_samples_depend_on_their_own_seed_alone():
    bert, image = bert_and_image()

    def seeded(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    tight = write_reports(
        bert, image, SPECIAL, 12, Decoding("nucleus", top_p=1e-6), seeded(0, 1, 2)
    )
    assert tight.tokens == write_reports(bert, image, SPECIAL, 12, GREEDY).tokens
    loose = Decoding("nucleus", top_p=0.95)
    first = write_reports(bert, image, SPECIAL, 12, loose, seeded(0, 1, 2))
    assert first.tokens == write_reports(bert, image, SPECIAL, 12, loose, seeded(0, 1, 2)).tokens
    assert first.tokens != write_reports(bert, image, SPECIAL, 12, loose, seeded(3, 4, 5)).tokens
    alone = [type(kv)(kv.keys[1:2], kv.values[1:2]) for kv in image]
    assert write_reports(bert, alone, SPECIAL, 12, loose, seeded(1)).tokens == first.tokens[1:2]


def test_special_tokens_are_never_written_and_no_report_is_too_long():
    bert, image = bert_and_image(images=8)
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    for decoding in (GREEDY, Decoding("beam"), Decoding("nucleus", top_p=1.0)):
        written = write_reports(bert, image, SPECIAL, 9, decoding, generators)
        assert all(len(tokens) <= 7 for tokens in written.tokens)
        assert not {*SPECIAL.never, SPECIAL.end} & {t for tokens in written.tokens for t in tokens}


def test_what_gm_was_trained_on_is_written():
    """The proof that generation feeds what training fed: overfitted reports come out again."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RetFiner(small_backbone(), small_bert(), mask_token_id=SPECIAL.mask).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = random_batch(size=4, length=10, seed=5)
    batch = batch._replace(images=batch.images.float())
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    loss, draw = GenerativeModelling(), torch.Generator().manual_seed(0)
    for _ in range(150):
        value = loss(model, batch, model.encode(batch, similarity=False), draw)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        image = model.encode(batch, similarity=False).image
    wanted = [
        row[1 : length - 1]
        for row, length in zip(batch.input_ids.tolist(), batch.lengths, strict=True)
    ]
    for decoding in (GREEDY, Decoding("beam", beams=3)):
        written = write_reports(model.multimodal_encoder, image, SPECIAL, 30, decoding)
        assert written.tokens == wanted
