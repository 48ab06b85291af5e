"""Export: finished models in the formats that other runtimes and kernels read; one file a format."""
