"""Tables and the files in results/ call contenders by these names, from which ratios are made."""

from __future__ import annotations

from bench.harness.contenders import OURS

# The whole step has ours under either scaler.
OUR_SCALER, TORCH_SCALER = "with clr_native.GradScaler", "with torch's GradScaler"
# Rates by hand are beside ours with its own schedule.
SCHEDULED = "its own schedule"
# Momentum is ours against ours.
FLOAT32, BFLOAT16 = "float32 momentum", "bfloat16 momentum"
TORCH_SCHEDULER = "torch CyclicLR"
# In bulk, schedules write into new arrays or into those that the caller keeps.
OUT, NUMPY = f"{OURS}, out=", "numpy formula"
