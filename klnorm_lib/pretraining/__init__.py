"""The recipes of the encoders that ship: resumable, seeded, on CPU or GPU."""
