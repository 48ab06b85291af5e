"""Data of one's own: `data._target_=own_data.Waves data.samples=2000`."""

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Waves(LightningDataModule):
    """Serve inputs `(n, 6)` and a smooth function of them `(n,)`."""

    def __init__(self, samples: int = 1024, batch_size: int = 64) -> None:
        super().__init__()
        self.samples, self.batch_size = samples, batch_size

    def setup(self, stage: str) -> None:
        """Make the three splits, the same ones every time."""
        inputs = torch.randn(self.samples, 6, generator=torch.Generator().manual_seed(0))
        targets = torch.sin(inputs[:, 0]) * inputs[:, 1] + inputs[:, 2]
        self.splits = [TensorDataset(inputs[start::4], targets[start::4]) for start in range(4)]

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Return half of the samples, shuffled."""
        return DataLoader(self.splits[0] + self.splits[1], self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Return a quarter."""
        return DataLoader(self.splits[2], self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Return the last quarter."""
        return DataLoader(self.splits[3], self.batch_size)
