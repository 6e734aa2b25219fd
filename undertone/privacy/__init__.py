"""Who may see what: searches for private texts, what git refuses, hashes, access."""
