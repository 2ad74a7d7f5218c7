"""The daemon: the only place with I/O, one folder for each responsibility."""
