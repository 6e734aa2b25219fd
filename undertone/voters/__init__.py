"""Language models label comments: requests, the doors by which answers come in, votes."""
