"""One file per command. Each has a `command`; nothing heavy is imported before it runs."""
