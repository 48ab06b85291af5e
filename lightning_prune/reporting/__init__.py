"""What is measured and shown: costs, tables, pictures."""
