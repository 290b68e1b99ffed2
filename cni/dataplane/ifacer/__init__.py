"""The plugin `ifacer`: VLANs and bonds of the host."""
