"""What the outside sees of the process: Prometheus metrics, health endpoints, structured logs."""
