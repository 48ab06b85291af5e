"""How numbers are rounded to few bits while a network trains with them."""
