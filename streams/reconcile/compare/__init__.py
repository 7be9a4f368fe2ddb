"""Every difference of one key (events, rows of tables, windows) and of the dead letters of a partition. Pure."""
