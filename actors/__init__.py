"""The actors that own pools, blocks and endpoints, and everything they stand on.

From the bottom: `errors`, `resources` (values), `decisions` (pure functions), `store` (durable objects),
`runtime` (mailboxes and handles), then one file per actor. Nothing here knows CNI or Prometheus.
"""
