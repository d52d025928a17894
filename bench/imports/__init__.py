"""This package asks how long ``import clr_native`` takes."""
