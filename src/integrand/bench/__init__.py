"""Benchmark suites: claims of papers about methods, run again and tested against numbers.

spelled.py      parts as they are typed, read from recipes        recipe.py    what a suite says
vocabulary.py   the words recipes are written in                  problems/    what suites are run on
harness.py      running, and going on where it stopped            claims.py    claim, our number, interval, verdict
training.py     small models, trained once                        telling.py   results as JSON and Markdown
suites/         the recipes of the package
"""
