"""What is installed around the program: device profiles and their schema."""
