"""The worker processes in which network namespaces are entered."""
