"""Figures of the concepts: drawn by these modules, committed as SVG in `docs/images/figures`.

`python -m docsite.drawings` writes them; a test holds file and drawing together. Colours are variables with a light and
a dark value: a figure follows the reader's system where it is an image, and the page where the site puts it into one.
"""
