"""From a float bundle to an INT8 bundle, accepted only through a gate."""
