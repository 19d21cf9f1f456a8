"""The model: published names, what a step computes and how often, and the temperature."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.losses import LOSSES, build_losses, losses_together
from retfiner.model import MIN_TEMPERATURE
from retfiner.text.reading import Reading
from tests.helpers.small import make_batch, random_batch, small_model


def count_calls(model, batch, losses=("itc", "itm", "mlm", "gm")):
    """Run the losses and count what the expensive parts saw."""
    seen: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    bert = model.multimodal_encoder

    def counting(name):
        def hook(module, inputs, output):
            seen[name] += 1
            rows[name] += inputs[0].flatten(0, -2).shape[0]

        return hook

    layer = bert.bert.encoder.layer[0]
    parts = {
        "vision": model.vision_encoder.patch_embed.proj,
        "text": layer.attention.self.query,
        "image keys": layer.crossattention.self.key,
        "image values": layer.crossattention.self.value,
        "fused": layer.crossattention.self.query,
        "vocabulary": bert.cls.predictions.decoder,
    }
    handles = [part.register_forward_hook(counting(name)) for name, part in parts.items()]
    active = {name: LOSSES[name]() for name in losses}
    encoded = model.encode(
        batch,
        similarity=any(loss.uses_similarity for loss in active.values()),
        fusion=any(loss.uses_fusion for loss in active.values()),
    )
    draws = {name: torch.Generator().manual_seed(0) for name in active}
    losses_together(active, model, batch, encoded, draws)
    for handle in handles:
        handle.remove()
    return seen, rows


def test_state_dict_keys_are_the_published_ones():
    keys = set(small_model(contrastive_dim=16).state_dict())
    roots = {key.split(".")[0] for key in keys}
    assert roots == {
        "vision_encoder", "vision_proj", "multimodal_encoder", "contra_head_t", "contra_head_v",
        "contra_temp", "itm_head",
    }  # fmt: skip
    assert {
        "contra_head_t.linear.weight",
        "contra_head_v.linear.weight",
        "itm_head.linear1.weight",
        "itm_head.linear1.bias",
        "itm_head.layernorm.weight",
        "itm_head.layernorm.bias",
        "itm_head.linear2.weight",
        "itm_head.linear2.bias",
        "multimodal_encoder.bert.embeddings.word_embeddings.weight",
        "multimodal_encoder.bert.encoder.layer.1.crossattention.self.key.weight",
        "multimodal_encoder.cls.predictions.bias",
        "vision_encoder.blocks.1.attn.qkv.weight",
        "vision_encoder.cls_token",
        "vision_encoder.pos_embed",
    } <= keys


def test_no_projection_where_widths_agree():
    model = small_model(vision_width=32)
    assert not [key for key in model.state_dict() if key.startswith("vision_proj")]
    assert model.encode_images(random_batch().images).shape == (6, 17, 32)


def test_a_step_computes_each_shared_part_once():
    batch = random_batch()
    seen, rows = count_calls(small_model(), batch)
    assert seen["vision"] == 1
    assert seen["image keys"] == seen["image values"] == 1, "keys and values once a step"
    assert rows["image keys"] == 6 * 17
    assert seen["fused"] == 1, "ITM's three groups, MLM and GM in one pass"
    assert seen["text"] == 2, "one text-only pass serves ITC and ITM"
    drawn = len(batch.lengths) * max(batch.lengths)
    assert rows["fused"] <= 4 * sum(batch.lengths) + drawn, "words alone; what is drawn may be long"
    hidden_at_most = 2 * (sum(batch.lengths) - 6)
    assert 0 < rows["vocabulary"] < hidden_at_most, "masked positions only"


@pytest.mark.parametrize(
    ("losses", "text", "fused", "vocabulary"),
    [(["itc"], 1, 0, 0), (["itm"], 2, 1, 0), (["mlm"], 1, 1, 1), (["gm"], 1, 1, 1)],
)
def test_what_is_off_costs_nothing(losses, text, fused, vocabulary):
    seen, _ = count_calls(small_model(), random_batch(), losses)
    assert (seen["text"], seen["fused"], seen["vocabulary"]) == (text, fused, vocabulary)
    assert seen["image keys"] == (1 if fused else 0)


def test_parts_of_inactive_losses_are_not_built():
    model = small_model(contrastive_dim=None, itm_head=None)
    assert not model.is_contrastive
    assert not [k for k in model.state_dict() if k.startswith(("contra", "itm"))]


def test_fuse_projects_images_that_were_not_projected_before():
    model, batch = small_model(), random_batch()
    index = torch.tensor([3, 0, 3, 1, 5, 2])
    for chosen in (None, index):
        reading = Reading(batch.input_ids, batch.attention_mask, batch.lengths, image_index=chosen)
        with_keys, without = (
            model.fuse(batch, model.encode(batch, fusion=fusion), [reading])[0]
            for fusion in (True, False)
        )
        torch.testing.assert_close(without, with_keys, rtol=0, atol=1e-12)


def test_pairs_match_by_report_or_image_unless_that_is_ignored():
    batch = random_batch()._replace(
        report_ids=torch.tensor([5, 5, 7, 8, 5, 9]), image_ids=torch.tensor([1, 2, 3, 1, 4, 5])
    )
    encoded = small_model(duplicate_reports="shared").encode(batch)
    shared, of_reports = encoded.relation, encoded.text_relation
    ignored = small_model(duplicate_reports="ignore").encode(batch).relation
    assert shared.matches[0].tolist() == [True, True, False, True, True, False]
    assert shared.matches[3].tolist() == [True, True, False, True, True, False], "image 1 again"
    assert of_reports.matches[0].tolist() == [True, True, False, True, True, False]
    assert of_reports.matches[3].tolist() == [True, False, False, True, False, False]
    assert torch.equal(of_reports.matches, shared.matches.T)
    assert torch.equal(shared.affinity, shared.matches)
    assert torch.equal(ignored.matches, torch.eye(6, dtype=torch.bool))
    assert torch.equal(ignored.affinity, ignored.matches)


@pytest.mark.parametrize("how", ["shared", "similar"])
def test_an_image_has_the_reports_of_all_its_rows(how):
    """Against a loop: no report is a negative of an image that a row of the batch gives it to."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        reports, images = torch.randint(4, (2, 12), generator=draw)
        texts = random_batch(4, seed=3)
        batch = make_batch(
            torch.zeros(12, 3, 32, 32), texts.input_ids[reports], texts.attention_mask[reports]
        )._replace(report_ids=reports, image_ids=images)
        found = small_model(duplicate_reports=how).relation(batch)
        pairs = set(zip(images.tolist(), reports.tolist(), strict=True))
        for i, image in enumerate(images.tolist()):
            for j, report in enumerate(reports.tolist()):
                assert found.matches[i, j] == ((image, report) in pairs)
                assert (found.affinity[i, j] == 1) == ((image, report) in pairs)


def test_similar_reports_are_right_by_the_words_they_share():
    """Sets of 10, 10, 9 and 1 words: cosines by hand, to the 8th power, equal pairs at 1."""
    words = [range(10, 20), range(19, 9, -1), range(10, 19), [40], [41]]
    ids, mask = torch.zeros(5, 12, dtype=torch.long), torch.zeros(5, 12, dtype=torch.long)
    for row, of in enumerate(words):
        ids[row, : len(of) + 2] = torch.tensor([2, *of, 3])
        mask[row, : len(of) + 2] = 1
    batch = make_batch(torch.zeros(5, 3, 32, 32), ids, mask)._replace(
        image_ids=torch.tensor([0, 1, 2, 3, 3])
    )
    found = small_model(duplicate_reports="similar").relation(batch)
    near = 9 / 90**0.5  # 0.949: too similar to be a negative
    cosine = torch.tensor(
        [[1, 1, near, 0, 0], [1, 1, near, 0, 0], [near, near, 1, 0, 0], [0] * 3 + [1, 1]]
    )
    torch.testing.assert_close(found.affinity[:4], cosine**8, rtol=0, atol=1e-6)
    assert torch.equal(found.matches[:4], cosine > 0.9)
    assert torch.equal(found.affinity, found.affinity.T)


def test_logits_are_float32_under_mixed_precision():
    """A cosine in bfloat16 moves in steps of 0.004, which a temperature of 0.07 makes 0.06."""
    model, batch = small_model().float(), random_batch()
    batch = batch._replace(images=batch.images.float())
    with torch.autocast("cpu", torch.bfloat16):
        encoded = model.encode(batch)
        assert encoded.image_tokens.dtype == torch.bfloat16, "mixed precision is on"
        loss = LOSSES["itc"]()(model, batch, encoded, torch.Generator())
    images, texts = encoded.image_embedding, encoded.text_embedding
    for values in (images, texts, encoded.similarity, encoded.text_similarity, loss):
        assert values.dtype == torch.float32
    assert torch.equal(encoded.similarity, images @ texts.T / model.temperature)
    assert torch.equal(encoded.text_similarity, encoded.similarity.T)
    for unit in (images, texts):
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(6), rtol=0, atol=1e-6)


def test_a_sigmoid_contrast_starts_as_its_paper_says():
    """t' = log 10 and b = -10: the logits are 10 x cosine - 10, both scalars are learned."""
    model = small_model(contrast="sigmoid", temperature=0.1)
    assert model.contra_temp.item() == pytest.approx(-math.log(10))
    assert model.contra_bias.item() == -10.0
    keys = set(model.state_dict()) - set(small_model().state_dict())
    assert keys == {"contra_bias"}


@pytest.mark.parametrize("exponential", [False, True])
def test_temperature_starts_trains_saves_and_stays_positive(exponential):
    model = small_model(exponential_temp=exponential, temperature=0.07)
    if exponential:
        with torch.no_grad():
            model.contra_temp.fill_(torch.tensor(0.07).log())
    assert model.temperature.item() == pytest.approx(0.07, rel=1e-6)
    loss = LOSSES["itc"]()
    batch = random_batch()
    value = loss(model, batch, model.encode(batch), torch.Generator())
    value.backward()
    assert model.contra_temp.grad.abs() > 0
    assert "contra_temp" in model.state_dict()
    with torch.no_grad():
        model.contra_temp.fill_(-50.0)  # what a step too large would do
    model.keep_temperature_positive()
    assert model.temperature.item() == pytest.approx(MIN_TEMPERATURE, rel=1e-6)


@pytest.mark.parametrize("exponential", [False, True])
def test_a_temperature_too_small_to_be_held_is_refused(exponential):
    with pytest.raises(InputError, match="temperature is too small") as caught:
        small_model(temperature=MIN_TEMPERATURE / 2, exponential_temp=exponential)
    assert "--contra_temp" in str(caught.value)


def test_temperature_divides_the_cosines():
    batch = random_batch()
    cold, warm = (small_model(temperature=t).encode(batch) for t in (0.05, 0.5))
    torch.testing.assert_close(cold.similarity, 10 * warm.similarity)
    cosines = warm.image_embedding @ warm.text_embedding.T
    torch.testing.assert_close(0.5 * warm.similarity, cosines)
    assert warm.image_embedding.norm(dim=1).tolist() == pytest.approx([1.0] * 6)
    assert warm.text_embedding.norm(dim=1).tolist() == pytest.approx([1.0] * 6)


def test_pairs_do_not_see_each_other_before_they_are_compared():
    """Permuting the batch permutes what is computed; padding to another's length adds nothing."""
    model, batch = small_model(), random_batch()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    permuted = make_batch(batch.images[order], batch.input_ids[order], batch.attention_mask[order])
    plain, other = model.encode(batch), model.encode(permuted)
    torch.testing.assert_close(other.similarity, plain.similarity[order][:, order])
    n = batch.lengths[1]
    assert n < batch.input_ids.shape[1]
    alone = model.embed_texts(batch.input_ids[1:2, :n], batch.attention_mask[1:2, :n])
    torch.testing.assert_close(alone[0], plain.text_embedding[1])


def test_temperature_moves_with_the_module():
    model = small_model().to("meta")
    assert model.contra_temp.device.type == "meta"
    assert any(parameter is model.contra_temp for parameter in model.parameters())


@pytest.mark.parametrize(
    "options",
    [{}, {"chunk_size": 2}, {"contrast": "sigmoid"}, {"duplicate_reports": "similar"}],
    ids=str,
)
def test_nothing_in_a_step_depends_on_the_values_on_the_device(options):
    """On the meta device tensors have no values, so any wait for one is an error."""
    batch = random_batch()
    model = small_model(**options).to("meta")
    on_device = make_batch(
        batch.images.to("meta"), batch.input_ids, batch.attention_mask, batch.report_ids
    )._replace(
        input_ids=batch.input_ids.to("meta"),
        attention_mask=batch.attention_mask.to("meta"),
        report_ids=batch.report_ids.to("meta"),
        image_ids=batch.image_ids.to("meta"),
    )
    with pytest.raises((NotImplementedError, RuntimeError)):
        on_device.input_ids.nonzero()  # the kind of thing that is looked for
    encoded = model.encode(on_device)
    generator = torch.Generator().manual_seed(0)
    losses = build_losses(LOSSES, model.contrast)
    values = {name: loss(model, on_device, encoded, generator) for name, loss in losses.items()}
    for name, value in values.items():
        assert value.shape == () and value.device.type == "meta", name
    sum(values.values()).backward()
    model.keep_temperature_positive()
