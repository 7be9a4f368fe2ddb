"""Growing a topic through each of the troubles that it has to survive: `make grow-ordeal`."""
