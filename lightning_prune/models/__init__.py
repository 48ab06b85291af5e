"""Networks as functions that return a plain `nn.Module`; `classifier.py` is the one LightningModule."""
