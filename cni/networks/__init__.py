"""Several interfaces for a pod with nothing else installed: the CNI plugin `orbweaver-networks`."""
