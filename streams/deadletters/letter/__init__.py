"""A dead letter, pure: its envelope, its audit records, columns over many of them, one taken apart."""
