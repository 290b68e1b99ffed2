"""The processes: agent and controller, and what both have."""
