"""What nodes say to each other, and what it means: pure values and functions of values."""
