"""The formats in which finished networks are written, a module each, which defines `FORMAT`."""
