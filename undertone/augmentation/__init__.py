"""Rows that nobody labelled: generated, pseudo-labelled; and how much each kind weighs."""
