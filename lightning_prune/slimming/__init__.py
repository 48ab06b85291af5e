"""From a masked model to a smaller one, proven equal."""
