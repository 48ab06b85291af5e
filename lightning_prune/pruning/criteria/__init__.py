"""Criteria: `(n_units, unit_size)` weights to `(n_units,)` scores, higher is kept; one file each."""
