"""The text side: BERT with cross-attention, its tokenizer, and masking."""

from retfiner.text.encoder import CrossAttentionBert, load_text_encoder
from retfiner.text.layer import KeysValues
from retfiner.text.masking import MaskedTokens, mask_tokens
from retfiner.text.tokenizer import TokenizedReports, load_tokenizer, tokenize

__all__ = [
    "CrossAttentionBert",
    "KeysValues",
    "MaskedTokens",
    "TokenizedReports",
    "load_text_encoder",
    "load_tokenizer",
    "mask_tokens",
    "tokenize",
]
