"""The shapes that travel through the operators: records as they are read, decoded events, rejects, rows of state."""
