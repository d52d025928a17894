"""These modules ask how long learning rates and momenta take by themselves: in bulk, and in ``CyclicLR.step()``."""
