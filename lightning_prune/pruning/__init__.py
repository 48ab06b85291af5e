"""From units to masks: what competes, which goes, and what stays in force."""
