"""Which method for this model: every method on every example, judged by every metric, and what the numbers allow to say.

scores.py    the table of raw results, mergeable and on disk     judging.py  methods and metrics in, scores out
portion.py   some examples of a batch, as a batch
"""

from .judging import Explained as Explained
from .judging import scored as scored
from .scores import Scores as Scores
