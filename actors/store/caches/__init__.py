"""What a process remembers of the store: informers, and the catalog on them."""
