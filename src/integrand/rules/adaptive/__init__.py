"""Rules that go on until a tolerance is met, and estimate their own error.

adaptive         bisection where neighbours disagree          refinement       round by round, until sums are known
intervals        the lines that are cut into intervals        estimates        errors, and how many pieces they need
clenshaw_curtis  smooth functions, nodes doubled              nested           tolerance for the sum over references
chords           the exact mean gradient of an interval
"""
