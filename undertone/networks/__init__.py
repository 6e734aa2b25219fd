"""Encoders and decoders: where their weights come from, and running them over texts."""
