"""Taking Orbweaver off a cluster: what is on each node, and what is in the API server."""
