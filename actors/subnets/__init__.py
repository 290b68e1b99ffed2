"""SpiderSubnets: which of their addresses went to which pools, and the pools that follow an application."""
