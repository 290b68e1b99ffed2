"""The pod data plane: what the chained CNI plugins do to the interfaces and routes of pods and of their host."""
