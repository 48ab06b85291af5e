"""Which channels of a model can only go together, and what can be removed with them."""
