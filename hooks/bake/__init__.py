"""What the two hooks do, a module a concern. Standard library only, Python 3.10 or newer, on all three systems."""
