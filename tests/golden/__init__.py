"""Answers of other packages, kept with the scripts that asked for them."""
