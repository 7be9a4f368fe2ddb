"""The documentation site: `make docs` builds it, `make docs-serve` serves it.

1. `stage.py` puts the pages of the project (`navigation.py` says which and in what order, `markdown.py` converts them)
   and the reference that is generated from the code (`reference/`) into `build/docs/pages`.
2. Zensical, from an environment of its own, builds `build/docs/site` of it.
3. `built.py` checks the result: links, anchors, nothing that is loaded from the internet.

The figures of the concepts are drawn by `drawings/`, and committed: `python -m docsite.drawings`.
"""
