"""People label comments: which ones, in what workbook, and what comes back."""
