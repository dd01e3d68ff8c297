"""Doors for users of other libraries: their interfaces, our methods. Imported by name, since each
needs its library."""
