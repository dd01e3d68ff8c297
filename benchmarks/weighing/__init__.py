"""Does weighing baselines pay, in whose currency, and can it pay more? Maps are linear in the weights, so one set of gradients answers for all.

judge.py       maps of one photograph under four fills, from few forward rows      candidates.py  evidence → weights of baselines
evidence.py    gradients, D, areas and outputs of one photograph, each found once  study.py       all weightings on every photograph; resumes
best.py        the best weights there are, by each criterion, and what they are worth by the others
choose.py      which weighting the first half chooses                              rivals.py      IG2 and its rivals, by the same judge
report.py      the page of all that is stored
"""
