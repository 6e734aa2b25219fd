"""What learns by gradient: the loop, its losses, the order and weight of rows, several devices."""
