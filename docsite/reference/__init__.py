"""Reference pages that are made of the code when the site is built: nothing in them is written by hand but headings."""
