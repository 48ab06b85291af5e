"""What train.py does, stage by stage."""
