"""These modules ask how long one step with its schedule takes, beside torch's and beside a bare loop."""
