"""Methods made of a method: they run it on other fields, inputs or baselines and put the maps
together.

base               what all wrappers share                     layer       maps of a layer
until_tolerance    more draws until the error is small         two_stage   coarse first, then where it counts
smoothgrad         noisy copies                                greedy      Greedy PIG: the best features first
xrai               regions of an image                         sequential  Sequential IG: one word at a time
distancing         gradient artificial distancing              modified_backward  another backward rule
"""
