"""The CNI side of Orbweaver: the protocol, the socket front end, the agent process and the command line."""
