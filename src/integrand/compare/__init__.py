"""Compare methods on one model: scores by every metric on every example, with intervals, tests and
verdicts.

api.py                   ig.compare
comparison.py            the result
evaluate.py              methods and metrics in, scores out
scores.py                the table of raw results, mergeable and on disk
statistics.py            intervals, tests, verdicts
controls.py              maps that a metric should distinguish from explanations
budget.py                methods at one cost, or one tolerance
subset.py                some examples of a batch, as a batch
map_agreement.py         similarity of maps
baseline_sensitivity.py  maps and scores from other baselines
"""

from .api import compare as compare
from .baseline_sensitivity import Sensitivity as Sensitivity
from .budget import Fitted as Fitted
from .budget import fitted as fitted
from .budget import tolerant as tolerant
from .comparison import Comparison as Comparison
from .controls import CONTROLS as CONTROLS
from .controls import EdgeMap as EdgeMap
from .controls import Gradient as Gradient
from .controls import InputGradient as InputGradient
from .controls import RandomMap as RandomMap
from .evaluate import Explained as Explained
from .evaluate import scored as scored
from .map_agreement import MapAgreement as MapAgreement
from .map_agreement import agreement as agreement
from .scores import Scores as Scores
from .statistics import Difference as Difference
from .statistics import Inference as Inference
from .statistics import Summary as Summary
from .statistics import Verdict as Verdict
from .statistics import differences as differences
from .statistics import summaries as summaries
from .statistics import verdict as verdict
