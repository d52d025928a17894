"""This package asks how long everything takes that a training loop calls after ``backward()``."""
