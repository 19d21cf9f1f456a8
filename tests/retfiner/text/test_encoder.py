"""Our forward passes against transformers' own, in float64."""

from __future__ import annotations

import pytest
import torch

from retfiner.text.packing import packing_of
from tests.helpers.small import fill, random_batch, small_bert


@pytest.fixture(scope="module")
def bert():
    model = small_bert().double().eval()
    fill(model)
    return model


@pytest.fixture(scope="module")
def image_tokens():
    return torch.randn(6, 17, 32, generator=torch.Generator().manual_seed(3)).double()


def theirs(bert, ids, mask, image=None, causal=False):
    keys = mask.bool()[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
    attend = keys & torch.ones(ids.shape[1], ids.shape[1]).bool().tril() if causal else keys
    if image is None:  # their model always crosses if it can; without tokens it does not
        return bert.bert(input_ids=ids, attention_mask=attend).last_hidden_state
    return bert.bert(
        input_ids=ids, attention_mask=attend, encoder_hidden_states=image
    ).last_hidden_state


def packing_of_batch(batch):
    return packing_of(batch.lengths, batch.input_ids.shape[1], batch.input_ids.device)


def words(batch, states):
    return states[batch.attention_mask.bool()]


def test_text_alone(bert):
    batch = random_batch()
    ours = bert.encode_text(batch.input_ids, batch.attention_mask)
    expected = theirs(bert, batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(words(batch, ours), words(batch, expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_text_over_an_image(bert, image_tokens, causal):
    batch = random_batch()
    image = bert.project_image(image_tokens)
    ours = bert.fuse(batch.input_ids, batch.attention_mask, image, causal=causal)
    expected = theirs(bert, batch.input_ids, batch.attention_mask, image_tokens, causal)
    torch.testing.assert_close(words(batch, ours), words(batch, expected), rtol=0, atol=1e-12)


def test_an_index_chooses_the_image(bert, image_tokens):
    batch = random_batch()
    image = bert.project_image(image_tokens)
    index = torch.tensor([5, 5, 0, 1, 3, 2])
    ours = bert.fuse(batch.input_ids, batch.attention_mask, image, index)
    expected = bert.fuse(
        batch.input_ids, batch.attention_mask, bert.project_image(image_tokens[index])
    )
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_packed_words_are_those_of_padded_reports(bert, image_tokens, causal):
    batch = random_batch()
    assert min(batch.lengths) < batch.input_ids.shape[1]
    image, index = bert.project_image(image_tokens), torch.tensor([5, 5, 0, 1, 3, 2])
    given = (batch.input_ids, batch.attention_mask, image, index, causal)
    packed = bert.fuse(*given, packing=packing_of_batch(batch))
    torch.testing.assert_close(
        words(batch, packed), words(batch, bert.fuse(*given)), rtol=0, atol=1e-12
    )
    assert (packed[~batch.attention_mask.bool()] == 0).all()


def test_padding_is_not_computed_where_lengths_are_known(bert):
    batch, rows = random_batch(), []
    layer = bert.bert.encoder.layer[0].intermediate
    handle = layer.register_forward_hook(lambda _, args, __: rows.append(args[0].numel() // 32))
    bert.encode_text(batch.input_ids, batch.attention_mask, packing_of_batch(batch))
    bert.encode_text(batch.input_ids, batch.attention_mask)
    handle.remove()
    assert rows == [sum(batch.lengths), batch.input_ids.numel()]


def test_padding_changes_nothing(bert, image_tokens):
    batch = random_batch()
    longer = torch.nn.functional.pad(batch.input_ids, (0, 6))
    mask = torch.nn.functional.pad(batch.attention_mask, (0, 6))
    image = bert.project_image(image_tokens)
    ours = bert.fuse(longer, mask, image)[:, :12]
    expected = bert.fuse(batch.input_ids, batch.attention_mask, image)
    torch.testing.assert_close(words(batch, ours), words(batch, expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_transformers(causal):
    """Of every weight and of the image, through one and the same sum of squares."""
    batch, grads = random_batch(), []
    for ours in (True, False):
        bert = small_bert().double().eval()
        fill(bert)
        image = torch.randn(6, 17, 32, generator=torch.Generator().manual_seed(3)).double()
        image.requires_grad_()
        ids, mask = batch.input_ids, batch.attention_mask
        if ours:
            states = bert.fuse(ids, mask, bert.project_image(image), causal=causal)
        else:
            states = theirs(bert, ids, mask, image, causal)
        words(batch, states).square().sum().backward()
        grads.append({n: p.grad for n, p in bert.named_parameters()} | {"image": image.grad})
    for name, expected in grads[1].items():
        if expected is None:
            assert grads[0][name] is None, name
        else:
            torch.testing.assert_close(grads[0][name], expected, rtol=1e-9, atol=1e-9)


def test_dropout_falls_while_training_only(bert, image_tokens):
    batch = random_batch()
    training = small_bert().double().train()
    fill(training)
    read = [
        [m.fuse(batch.input_ids, batch.attention_mask, m.project_image(image_tokens)) for _ in "12"]
        for m in (training, bert)
    ]
    assert not torch.equal(*read[0])
    assert torch.equal(*read[1])


def test_vocabulary_scores_are_transformers(bert):
    states = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(bert.predict_tokens(states), bert.cls(states), rtol=0, atol=0)
    tied = bert.cls.predictions.decoder.weight
    assert tied is bert.bert.embeddings.word_embeddings.weight


def test_gradients_do_not_depend_on_which_thread_comes_first():
    """Many texts over few images: what each adds to an image's gradient is added in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        bert = small_bert().eval()
        image = torch.randn(64, 257, 32, generator=torch.Generator().manual_seed(0))
        index = torch.randint(5, (64,), generator=torch.Generator().manual_seed(1))
        ids = torch.randint(5, 120, (64, 12), generator=torch.Generator().manual_seed(2))
        found = set()
        for _ in range(10):
            tokens = image.clone().requires_grad_()
            states = bert.fuse(ids, torch.ones_like(ids), bert.project_image(tokens), index)
            (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
            found.add(tokens.grad.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
