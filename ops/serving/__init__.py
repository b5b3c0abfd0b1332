"""From settings to what the processes are given: model files, backends, keys, the broker's address."""
