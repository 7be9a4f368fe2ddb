"""Dead letters: what they are (`letter`), what is done about them (`review`), and the page for it (`web`)."""
