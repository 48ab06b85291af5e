"""Granularities: how a weight is cut into the units that are removed at once; one file each."""
