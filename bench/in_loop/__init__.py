"""These modules ask how long a step takes inside a training loop, where caches are as the backward pass left them."""
