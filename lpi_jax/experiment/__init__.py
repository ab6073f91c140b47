"""From a configuration to the things a run is made of."""
