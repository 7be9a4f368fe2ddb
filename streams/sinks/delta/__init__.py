"""Delta Lake as a target: rows and offsets in one commit of the table. Needs the extra `delta`."""
