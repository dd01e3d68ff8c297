"""Tree ensembles of scikit-learn, XGBoost and LightGBM, with exact shares."""

from .ensemble import Tree as Tree
from .ensemble import TreeEnsemble as TreeEnsemble
from .field import TreeField as TreeField
from .field import read_trees as read_trees
from .model import TreeModel as TreeModel
