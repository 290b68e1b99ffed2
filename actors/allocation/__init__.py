"""The way of an ADD and a DEL: Endpoint, Pool, Block and Ledger actors, and what they send each other."""
