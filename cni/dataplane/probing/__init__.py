"""Asking on the wire whether somebody has an address: ARP and neighbour discovery."""
