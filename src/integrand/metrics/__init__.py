"""Metrics of explanations.

base            the base class, registry and functional forms
task            what metrics are computed on: a field, inputs, masks
maps            the maps of one or several methods
running         a metric over a data set, batch by batch
map_properties  sparseness, complexity, completeness
localisation    maps against masks
similarity      maps against maps
retraining      models trained without the top features
conditional     XAI-Bench's metrics, by known expectations
perturbation/   replacing features
robustness/     changing inputs, parameters and classes
axioms/         the axioms as checks
"""

from ..core.renamed import renamed as _renamed
from . import xai_bench as xai_bench
from .axioms import Axioms as Axioms
from .axioms import AxiomVerdict as AxiomVerdict
from .axioms import axioms as axioms
from .base import Metric as Metric
from .base import as_metric as as_metric
from .base import judge as judge
from .base import known as known
from .base import metric as metric
from .localisation import LocalisationAUC as LocalisationAUC
from .localisation import MaskOverlap as MaskOverlap
from .localisation import PointingGame as PointingGame
from .localisation import RelevanceMass as RelevanceMass
from .localisation import RelevanceRank as RelevanceRank
from .localisation import TopIntersection as TopIntersection
from .localisation import localisation_auc as localisation_auc
from .localisation import mask_overlap as mask_overlap
from .localisation import pointing_game as pointing_game
from .localisation import relevance_mass as relevance_mass
from .localisation import relevance_rank as relevance_rank
from .localisation import top_intersection as top_intersection
from .map_properties import CompletenessGap as CompletenessGap
from .map_properties import Complexity as Complexity
from .map_properties import EffectiveComplexity as EffectiveComplexity
from .map_properties import Sparseness as Sparseness
from .map_properties import completeness_gap as completeness_gap
from .map_properties import complexity as complexity
from .map_properties import effective_complexity as effective_complexity
from .map_properties import sparseness as sparseness
from .maps import Maps as Maps
from .perturbation import ABPC as ABPC
from .perturbation import AIC as AIC
from .perturbation import AOPC as AOPC
from .perturbation import IROF as IROF
from .perturbation import PGI as PGI
from .perturbation import PGU as PGU
from .perturbation import ROAD as ROAD
from .perturbation import SIC as SIC
from .perturbation import Comprehensiveness as Comprehensiveness
from .perturbation import Deletion as Deletion
from .perturbation import DiffID as DiffID
from .perturbation import Insertion as Insertion
from .perturbation import LeRF as LeRF
from .perturbation import LogOdds as LogOdds
from .perturbation import MoRF as MoRF
from .perturbation import ROADLeRF as ROADLeRF
from .perturbation import SoftComprehensiveness as SoftComprehensiveness
from .perturbation import SoftSufficiency as SoftSufficiency
from .perturbation import Sufficiency as Sufficiency
from .perturbation import abpc as abpc
from .perturbation import aic as aic
from .perturbation import aopc as aopc
from .perturbation import area as area
from .perturbation import comprehensiveness as comprehensiveness
from .perturbation import deletion as deletion
from .perturbation import diffid as diffid
from .perturbation import insertion as insertion
from .perturbation import irof as irof
from .perturbation import lerf as lerf
from .perturbation import log_odds as log_odds
from .perturbation import morf as morf
from .perturbation import pgi as pgi
from .perturbation import pgu as pgu
from .perturbation import road as road
from .perturbation import road_lerf as road_lerf
from .perturbation import sic as sic
from .perturbation import soft_comprehensiveness as soft_comprehensiveness
from .perturbation import soft_sufficiency as soft_sufficiency
from .perturbation import sufficiency as sufficiency
from .perturbation.effects import Monotonicity as Monotonicity
from .perturbation.effects import MonotonicityCorrelation as MonotonicityCorrelation
from .perturbation.effects import NonSensitivity as NonSensitivity
from .perturbation.effects import Within as Within
from .perturbation.effects import monotonicity as monotonicity
from .perturbation.effects import monotonicity_correlation as monotonicity_correlation
from .perturbation.effects import non_sensitivity as non_sensitivity
from .perturbation.faithfulness import FaithfulnessCorrelation as FaithfulnessCorrelation
from .perturbation.faithfulness import FaithfulnessEstimate as FaithfulnessEstimate
from .perturbation.faithfulness import SensitivityN as SensitivityN
from .perturbation.faithfulness import faithfulness_correlation as faithfulness_correlation
from .perturbation.faithfulness import faithfulness_estimate as faithfulness_estimate
from .perturbation.faithfulness import sensitivity_n as sensitivity_n
from .perturbation.graphs import Characterization as Characterization
from .perturbation.graphs import FidelityMinus as FidelityMinus
from .perturbation.graphs import FidelityPlus as FidelityPlus
from .perturbation.graphs import Jaccard as Jaccard
from .perturbation.graphs import Sparsity as Sparsity
from .perturbation.graphs import Unfaithfulness as Unfaithfulness
from .perturbation.graphs import characterization as characterization
from .perturbation.graphs import characterize as characterize
from .perturbation.graphs import fidelities as fidelities
from .perturbation.graphs import fidelity_minus as fidelity_minus
from .perturbation.graphs import fidelity_plus as fidelity_plus
from .perturbation.graphs import jaccard as jaccard
from .perturbation.graphs import sparsity as sparsity
from .perturbation.graphs import unfaithful as unfaithful
from .perturbation.graphs import unfaithfulness as unfaithfulness
from .perturbation.infidelity import Infidelity as Infidelity
from .perturbation.infidelity import Jitter as Jitter
from .perturbation.infidelity import NoisyFill as NoisyFill
from .perturbation.infidelity import RandomFeatures as RandomFeatures
from .perturbation.infidelity import Square as Square
from .perturbation.infidelity import infidelity as infidelity
from .retraining import Retraining as Retraining
from .retraining import diff_roar as diff_roar
from .retraining import kar as kar
from .retraining import roar as roar
from .robustness import MPRT as MPRT
from .robustness import EfficientMPRT as EfficientMPRT
from .robustness import RandomLogit as RandomLogit
from .robustness import SmoothMPRT as SmoothMPRT
from .robustness import efficient_mprt as efficient_mprt
from .robustness import mprt as mprt
from .robustness import random_logit as random_logit
from .robustness import smooth_mprt as smooth_mprt
from .robustness.max_sensitivity import MaxSensitivity as MaxSensitivity
from .robustness.max_sensitivity import max_sensitivity as max_sensitivity
from .running import BatchScores as BatchScores
from .running import Running as Running
from .similarity import Agreement as Agreement
from .similarity import agreement as agreement
from .task import Subject as Subject

__getattr__ = _renamed(__name__, {"Verdict": "AxiomVerdict", "Result": "BatchScores"})
