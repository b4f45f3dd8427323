"""What takes how long: `make bench`. One file for each thing that is measured; `__main__` makes the table of all."""
