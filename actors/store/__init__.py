"""Durable objects: one contract, its implementations, and the informers that stand on it."""
