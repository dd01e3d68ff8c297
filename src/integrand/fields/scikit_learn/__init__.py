"""Models of scikit-learn that torch can differentiate: linear models, multilayer perceptrons, and
pipelines of them behind transformers of numbers."""

from .field import ScikitLearnField as ScikitLearnField
