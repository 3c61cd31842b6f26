"""The dashboard: a process of its own that sees the live feed of one box and nothing else."""
