"""Rules by ATen operator: which channels of the inputs and of the output are the same, and which stay zero.

Each file says in `RULES` for which operators it has rules, and `operator_rules.py` gathers them: the rule of another
operator is one more file, and nothing else.
"""
