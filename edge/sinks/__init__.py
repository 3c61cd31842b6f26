"""Where results go besides the live feed."""
