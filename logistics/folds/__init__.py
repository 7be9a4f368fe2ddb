"""What is kept of each vehicle and each order."""
