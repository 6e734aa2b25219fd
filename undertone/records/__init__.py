"""Runs and registered versions, here and on a team's server, and the way back to their data."""
