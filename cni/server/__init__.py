"""The CNI socket: connections, the protocol, what requests may name, and the runtime's own notes."""
