"""The lowest floor: values, shapes, randomness, number formatting, files.

values         frozen dataclasses whose repr can be typed back        declared       attributes that parts declare, with defaults
options        type checks of options, by their annotations           random         seeds
shapes         broadcasting, flattening, names of shapes              segment        a piece of a path, and evaluations at its points
features       superpixels and other groups of features               normalisation  what image inputs mean to the eye
memory_budget  how many numbers are worked on at a time               optional       packages that only some features need
ranks          ranks with ties                                        correlation    Pearson and Spearman with ties
formatting     numbers as a reader meets them                         files          files that are written whole or not at all
"""
