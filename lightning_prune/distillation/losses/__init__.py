"""Distillation: student's and teacher's logits or features to a scalar loss; one file each."""
