"""Benchmarks of clr_native against PyTorch: see bench/README.md."""
