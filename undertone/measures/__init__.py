"""How good a candidate is, how sure that is, and how much of a corpus is what."""
