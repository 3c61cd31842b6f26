"""From labelled images to a float bundle. Never imports an inference runtime at module level."""
