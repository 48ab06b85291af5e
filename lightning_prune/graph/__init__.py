"""What a model computes: its traced graph, its calls, and what its operators do."""
