"""Opens containers: files (or Zarr folders) that hold arrays by name. Each kind has a file of its own."""
