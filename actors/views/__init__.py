"""What is computed from the blocks and the cluster and written for people: endpoints, pool status, Events, CIDRs."""
