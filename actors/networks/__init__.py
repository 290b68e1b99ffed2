"""Networks that pods are attached to: made from SpiderMultusConfigs."""
