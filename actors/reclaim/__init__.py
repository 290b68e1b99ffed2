"""Taking back what nobody holds any more: rules, evidence, the cluster's and the node's garbage collection."""
