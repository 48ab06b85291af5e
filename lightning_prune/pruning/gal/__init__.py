"""The search of GAL: soft masks over structures, trained against a discriminator."""
