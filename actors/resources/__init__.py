"""Resources: the objects of the API as pure, frozen values. Nothing here does I/O, reads a clock or logs."""
