"""What happened: immutable, versioned, readable for ever. No I/O, no clock."""
