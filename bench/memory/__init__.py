"""This package asks how much memory a step needs at its peak."""
