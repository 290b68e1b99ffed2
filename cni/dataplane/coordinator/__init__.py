"""The plugin `coordinator`: routes, rules and neighbours of underlay pods."""
