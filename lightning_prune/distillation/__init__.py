"""What a callback needs to teach: teachers, recorders, losses."""
