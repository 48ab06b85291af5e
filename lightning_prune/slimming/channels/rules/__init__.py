"""Rules by ATen operator: which channels of the inputs and of the output are the same, and which stay zero."""
