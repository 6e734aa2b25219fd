"""From a lab's files to a split: tables as they were written, repeats, rare labels, the certificate."""
