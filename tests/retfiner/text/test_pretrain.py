"""A BERT made from reports alone learns to read them."""

import math

import pytest
import torch

from retfiner.text.build import small_bert
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.pretrain import pretrain_text
from retfiner.text.tokenizer import train_tokenizer

DRUSEN = ("Drusen under the fovea.", "Several drusen, no fluid.", "Large soft drusen centrally.")
FLUID = (
    "Subretinal fluid, no atrophy.",
    "Fluid under the retina.",
    "Serous fluid below the fovea.",
)
REPORTS = [*DRUSEN, *FLUID] * 16


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(REPORTS, 120)


def new_bert(tokenizer):
    torch.manual_seed(0)
    return CrossAttentionBert(small_bert(len(tokenizer), 64, 2)).eval()


def named_words(encoder, tokenizer):
    """Of each sentence's distinct WordPieces, the share among as many that [CLS] scores highest."""
    shares = []
    for sentence in (*DRUSEN, *FLUID):
        ids = torch.tensor(tokenizer(sentence)["input_ids"])
        with torch.no_grad():
            state = encoder.encode_text(ids[None], torch.ones_like(ids)[None])[:, 0]
        words = set(ids.tolist()) - set(tokenizer.all_special_ids)
        named = encoder.predict_tokens(state)[0].topk(len(words)).indices.tolist()
        shares.append(len(words & set(named)) / len(words))
    return sum(shares) / len(shares)


def test_cls_comes_to_name_the_words_of_its_report(tokenizer):
    encoder = new_bert(tokenizer)
    assert named_words(encoder, tokenizer) < 0.3
    losses = pretrain_text(encoder, tokenizer, REPORTS, epochs=40, seed=0)
    assert losses[0] > 1.5 * math.log(len(tokenizer))  # two objectives, each as good as guessing
    assert losses[-1] < 0.6 * losses[0]
    assert named_words(encoder, tokenizer) > 0.9


@pytest.mark.parametrize("epochs", [1, 10])
def test_any_number_of_steps(tokenizer, epochs):
    """Of ten steps the warm-up is one."""
    losses = pretrain_text(new_bert(tokenizer), tokenizer, REPORTS[:6], epochs=epochs, seed=0)
    assert len(losses) == epochs and losses[-1] <= losses[0]


def test_cross_attention_has_no_part_in_it_and_the_seed_decides(tokenizer):
    first, second, other = (new_bert(tokenizer) for _ in range(3))
    before = {name: value.clone() for name, value in first.state_dict().items()}
    for encoder, seed in ((first, 0), (second, 0), (other, 1)):
        pretrain_text(encoder, tokenizer, REPORTS, epochs=1, seed=seed)
    after = first.state_dict()
    for name, value in before.items():
        is_crossed = "crossattention" in name
        assert torch.equal(value, after[name]) == (is_crossed or name.endswith("_ids")), name
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in after.items())
    assert not torch.equal(
        after["cls.predictions.bias"], other.state_dict()["cls.predictions.bias"]
    )
