"""Browser components the page is built from."""
