"""Paths that descend an objective of the model: IG2's GradPath and adversarial walks.

descent     towards a reference's representation
attack      towards another class, or across a boundary
walk        the walk itself, its box and step length
step_rules  how one step goes
objective   what is descended, and the state of a walk
"""
