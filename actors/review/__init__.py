"""What is asked of the leader before the API server stores an object: whether it may be, next to all others."""
