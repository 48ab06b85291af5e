"""Functions that return a LightningDataModule; one file a data set."""
