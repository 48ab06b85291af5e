"""Schedules: sparsity as a pure function of progress in [0, 1]; one file each."""
