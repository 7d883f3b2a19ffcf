"""Pretraining of the speech encoder that ships, on synthesised speech."""
