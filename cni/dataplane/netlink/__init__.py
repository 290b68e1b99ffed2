"""The kernel's network: links, routes, rules, neighbours, namespaces."""
