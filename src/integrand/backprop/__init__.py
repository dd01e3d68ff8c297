"""Backward passes other than autograd's.

chords/    finite differences carried backward through every operation: exact mean gradients between
           two points
softplus   ReLUs smoothed, for second derivatives
modified/  published rules that replace the gradient of an operation: guided ReLU, patterns
"""
