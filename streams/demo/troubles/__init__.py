"""What goes wrong on purpose when a key is pressed; each trouble says what one sees, then what was counted."""
