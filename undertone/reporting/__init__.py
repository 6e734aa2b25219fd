"""Figures for people: the report, its pictures, comparisons of experiments."""
