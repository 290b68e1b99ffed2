"""The block log's values: 64 addresses of the address space, who holds them, and their form in the API."""
