"""A trained encoder as ONNX graphs, and what runs, times, serves and scores with them."""
