"""Methods, metrics and parts as text: what their reprs print is read back, and nothing is executed
that is not in the table of names."""
