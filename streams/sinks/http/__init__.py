"""An HTTP endpoint as a target: batches of changed rows as JSON, at least once, with ids."""
