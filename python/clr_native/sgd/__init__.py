"""SGD with momentum whose schedule is part of the update."""
