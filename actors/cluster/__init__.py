"""Several processes that allocate: lease, leader, failover, certificates, and who follows whom."""
