"""How alike reports are by the words that they share."""

import torch
from torch import Tensor

from retfiner.common.devices import without_autocast


def shared_words(input_ids: Tensor, attention_mask: Tensor, vocab_size: int) -> Tensor:
    """Compare N reports by the cosine of their sets of WordPieces, [CLS] and [SEP] left out.

    Of two reports with a and b distinct WordPieces, c of them in both, it is c / sqrt(a b): 1 for
    the same words in whichever order, 0 for none in common (Salton & McGill, 1983). A negation
    counts as any other word.

    Args:
        input_ids: (N, L) WordPiece ids: [CLS], words, [SEP], padding.
        attention_mask: (N, L), 1 for a token and 0 for padding.
        vocab_size: Number of WordPieces.

    Returns:
        (N, N) float32 in [0, 1].
    """
    is_word = attention_mask.clone()
    is_word[:, :-1] *= attention_mask[:, 1:]  # the last token of each report is [SEP]
    is_word[:, -1] = 0
    is_word[:, 0] = 0  # [CLS]
    sets = torch.zeros(len(input_ids), vocab_size, device=input_ids.device)
    sets = sets.scatter_reduce(1, input_ids, is_word.float(), "amax")
    with without_autocast(input_ids.device):  # bfloat16 would round counts
        common = sets @ sets.T
    counts = sets.sum(1)
    return common / (counts[:, None] * counts).clamp(min=1).sqrt()
