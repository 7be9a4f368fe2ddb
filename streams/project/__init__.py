"""`streams new`: the repository that a user's flows live in."""
