"""These modules ask how good the answers of a range test are; they measure no time."""
