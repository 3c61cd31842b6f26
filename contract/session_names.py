"""How the files in the folder of session logs are called: who writes them and who lists them."""

import re

SESSION_NAME = re.compile(r"\d{8}T\d{6}_\d{6}Z(\.part\d+)?\.csv")
"""A session log, or a part it goes on in."""

CORRECTIONS_NAME = "corrections.csv"
"""What people at the dashboard said a shown label should have been, for all sessions beside it."""
