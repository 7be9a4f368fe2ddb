"""Hold events until the watermark passes them, release them in order, tell late ones apart."""
