"""Benchmark suites: claims of papers about methods, run again and tested against numbers.

expression.py   reader of part expressions in suite files         suite.py     suites, read from TOML
names.py        names that suite files may use                    problems/    models and data of suites
runner.py       running, and resuming an interrupted run          claims.py    claim, our number, interval, verdict
training.py     small models, trained once                        results.py   results as JSON and Markdown
power.py        which difference so many examples can show
peers/          explainers of other libraries
suites/         the suites of the package
"""
