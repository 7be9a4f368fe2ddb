"""Words of pages and docstrings: proselint's checks, and the vocabulary of the project (`vocabulary.toml`).

`python -m docsite.words` prints a line for each finding, with what to write instead; `make check` runs it.
"""
