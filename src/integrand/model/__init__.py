"""Running a torch model on rows; nothing here knows about attribution.

network           the model as it is called, layers found by name        layout      inputs of any arrangement, packed into one tensor
batching          rows per call, found while working                     extra       arguments beside the inputs
autograd          gradients to the input alone                           fusion      a faster copy with batch norms folded
recording         what a call did between layers                         replay      running it again from a layer on
row_independence  whether rows depend on each other or on chance         diagnose    where NaN comes from, degenerate layers
failure           what the model's own error says to a stranger          turns       one explanation at a time, everything undone
borrowed          a module in eval mode, given back as it was            discovery   modules that a plain function runs
"""
