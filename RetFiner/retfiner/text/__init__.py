"""The text side: BERT with cross-attention, its tokenizer, and masking."""
