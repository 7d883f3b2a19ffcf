"""Masked-language-model pretraining of the text encoders that ship."""
