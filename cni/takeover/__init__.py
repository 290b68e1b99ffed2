"""Taking over from another IPAM, and giving back to it: what it holds, what will differ, and the swap."""
