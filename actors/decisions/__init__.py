"""Allocation decisions: pure functions of values. No I/O, no clock, no logging; each returns its reasons."""
