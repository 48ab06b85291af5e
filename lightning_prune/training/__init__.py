"""What any callback needs of a Trainer: order, moments, loss terms, state, agreement of processes."""
