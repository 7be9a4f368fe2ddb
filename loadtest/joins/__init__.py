"""The benchmark of joins: orders meet the positions of their vehicles."""
