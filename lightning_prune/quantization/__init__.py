"""Networks that compute with rounded numbers."""
