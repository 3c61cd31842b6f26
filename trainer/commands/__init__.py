"""The subcommands of `fer-trainer`, one file each, loaded when called."""
