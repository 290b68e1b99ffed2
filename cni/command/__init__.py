"""The command line, `orbweaver`."""
